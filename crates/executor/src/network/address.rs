//! Which addresses are somebody else's: the public internet, and not this machine, its network, or a service that a
//! cloud offers to its own machines. After the special-purpose registries of IANA (RFC 6890 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address is from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Of the public internet.
    Public,
    /// Of this machine or a private network: only an operator can mean it.
    Private,
    /// Of the link itself, where clouds put their metadata, or of no single host. Nobody means it.
    Never,
}

/// Where an address leads.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_of_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => reach_of_v4(address),
            None => reach_of_v6(address),
        },
    }
}

fn reach_of_v4(address: Ipv4Addr) -> Reach {
    let [first, second, third, _] = address.octets();
    if address.is_link_local() || address.is_multicast() || address.is_broadcast() || first == 0 {
        return Reach::Never;
    }
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_assigned_by_protocol = (first, second, third) == (192, 0, 0);
    let is_for_benchmarks = first == 198 && (second == 18 || second == 19);
    let is_reserved = first >= 240;
    if address.is_loopback()
        || address.is_private()
        || address.is_documentation()
        || is_shared
        || is_assigned_by_protocol
        || is_for_benchmarks
        || is_reserved
    {
        return Reach::Private;
    }
    Reach::Public
}

fn reach_of_v6(address: Ipv6Addr) -> Reach {
    let [first, second, ..] = address.segments();
    if address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local() {
        return Reach::Never;
    }
    // Amazon's metadata service.
    if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        return Reach::Never;
    }
    let is_of_protocols = first == 0x2001 && second < 0x200;
    let is_documentation = (first, second) == (0x2001, 0xdb8) || first == 0x3fff && second < 0x1000;
    // All that is assigned to hosts of the internet lies in 2000::/3.
    if first & 0xe000 == 0x2000 && !is_of_protocols && !is_documentation {
        return Reach::Public;
    }
    Reach::Private
}

/// The IPv4 address to which a gateway or the kernel would lead an IPv6 address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [first, second, third, ..] = address.segments();
    let last_four = || {
        let bytes = address.octets();
        Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15])
    };
    let is_nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let is_compatible =
        address.segments()[..6] == [0; 6] && !address.is_loopback() && !address.is_unspecified();
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    if is_nat64 || is_compatible {
        return Some(last_four());
    }
    let is_6to4 = first == 0x2002;
    is_6to4.then(|| {
        let [[a, b], [c, d]] = [second.to_be_bytes(), third.to_be_bytes()];
        Ipv4Addr::new(a, b, c, d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        let rows = [
            (
                Reach::Public,
                "8.8.8.8 151.101.0.223 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 198.17.0.1 \
                 198.20.0.1 223.255.255.255 2a04:4e42::223 2606:4700::1111 2001:4860:4860::8888 64:ff9b::808:808 \
                 ::ffff:8.8.8.8 2002:808:808::1",
            ),
            (
                Reach::Private,
                "127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 \
                 192.0.0.1 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 240.0.0.1 ::1 fc00::1 \
                 fd12:3456::1 fec0::1 2001::1 2001:db8::1 3fff::1 4000::1 64:ff9b:1::1 100::1 ::ffff:127.0.0.1 \
                 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 2002:a00:1::1 ::127.0.0.1",
            ),
            (
                Reach::Never,
                "0.0.0.0 0.1.2.3 169.254.169.254 169.254.0.1 224.0.0.1 239.1.1.1 255.255.255.255 :: fe80::1 febf::1 \
                 ff02::1 fd00:ec2::254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 ::ffff:0.0.0.0",
            ),
        ];
        for (expected, addresses) in rows {
            for text in addresses.split_whitespace() {
                assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
            }
        }
    }
}
