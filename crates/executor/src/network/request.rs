//! What a command may ask of the proxy: one line that names a host and a port. Everything here is hostile.

/// How many bytes a request may have before it must have ended.
pub(super) const LARGEST: usize = 8 << 10;

/// A well-formed wish for a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// In lower case, without a dot at its end. Letters, digits, `.`, `-`, `_`, and for an address also `:`.
    pub(super) host: String,
    pub(super) port: u16,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It is no request of HTTP/1, or names no host.
    NotHttp,
    /// A request for a page, which would have to be carried in the clear.
    NotATunnel,
}

/// Reads the first line of a request. The fields after it say nothing that counts.
pub(super) fn read(head: &[u8]) -> Result<Wanted, Malformed> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|_| Malformed::NotHttp)?;
    let words: Vec<&str> = line.strip_suffix('\r').unwrap_or(line).split(' ').collect();
    let [method, authority, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return Err(Malformed::NotHttp) };
    if method != "CONNECT" {
        return Err(Malformed::NotATunnel);
    }
    let (name, port) = authority.rsplit_once(':').ok_or(Malformed::NotHttp)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or(Malformed::NotHttp)?;
    let host = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|address| address.to_string()),
        None => host(name),
    };
    Ok(Wanted { host: host.ok_or(Malformed::NotHttp)?, port })
}

/// A host's name as it is compared: in lower case, without a dot at its end. None when it could not be a name.
pub(super) fn host(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tunnel_to_a_name_and_a_port_is_understood() {
        let wanted = |host: &str, port| Ok(Wanted { host: host.to_owned(), port });
        let rows = [
            ("CONNECT pypi.org:443 HTTP/1.1\r\nHost: else.example\r\n\r\n", wanted("pypi.org", 443)),
            ("CONNECT PyPI.org.:443 HTTP/1.0\n\n", wanted("pypi.org", 443)),
            ("CONNECT [::1]:22 HTTP/1.1\r\n\r\n", wanted("::1", 22)),
            ("CONNECT 169.254.169.254:443 HTTP/1.1\r\n\r\n", wanted("169.254.169.254", 443)),
            ("GET http://pypi.org/ HTTP/1.1\r\n\r\n", Err(Malformed::NotATunnel)),
            ("CONNECT pypi.org HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org:0 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org:65536 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org:443:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org@evil.example:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org/evil:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi..org:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org\u{0}.evil:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT pypi.org\t:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT p\u{443}pi.org:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT [pypi.org]:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("CONNECT  pypi.org:443 HTTP/1.1\r\n\r\n", Err(Malformed::NotHttp)),
            ("PRI * HTTP/2.0\r\n\r\n", Err(Malformed::NotHttp)),
            ("\u{5}\u{1}\u{0}", Err(Malformed::NotHttp)),
            ("", Err(Malformed::NotHttp)),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(read(b"CONNECT \xff:443 HTTP/1.1\r\n\r\n"), Err(Malformed::NotHttp));
        assert_eq!(host(&"a.".repeat(200)), None);
    }
}
