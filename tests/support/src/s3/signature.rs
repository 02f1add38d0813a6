//! Version 4 of the signatures of AWS, from the side that verifies them.

use std::fmt::Write as _;

use axum::http::{HeaderMap, Method, Uri};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Refusal;

/// A request as it came.
pub(super) struct Signed<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// How far the clock of a client may be off, in seconds.
const SKEW: i64 = 15 * 60;

impl Signed<'_> {
    /// Lets in who has the secret, signed for this region and for exactly this request, not long ago.
    pub(super) fn verify(&self, key_id: &str, secret: &str, region: &str) -> Result<(), Refusal> {
        let claimed = Claim::parse(self.header("authorization")).ok_or(Refusal(
            403,
            "AccessDenied",
            "The request is not signed.",
        ))?;
        if claimed.key_id != key_id {
            return Err(Refusal(403, "InvalidAccessKeyId", "The key id does not exist in our records."));
        }
        if claimed.region != region {
            return Err(Refusal(400, "AuthorizationHeaderMalformed", "The region in it is wrong."));
        }
        let date = self.header("x-amz-date");
        if !date.starts_with(claimed.day) || !is_recent(date) {
            return Err(Refusal(403, "RequestTimeTooSkewed", "The time of the request is too far off."));
        }
        let must_be_signed = |name: &&str| *name == "host" || name.starts_with("x-amz-");
        let names = self.headers.keys().map(|name| name.as_str());
        if names.filter(must_be_signed).any(|name| !claimed.signed.contains(&name)) {
            return Err(Refusal(403, "AccessDenied", "There were headers present which were not signed"));
        }
        if self.header("x-amz-content-sha256") != sha256(self.body) {
            return Err(Refusal(400, "XAmzContentSHA256Mismatch", "The digest is not that of the body."));
        }
        if self.signature(&claimed, secret) != claimed.signature {
            return Err(Refusal(403, "SignatureDoesNotMatch", "The signature we calculated is another."));
        }
        Ok(())
    }

    fn signature(&self, claimed: &Claim<'_>, secret: &str) -> String {
        let scope = format!("{}/{}/s3/aws4_request", claimed.day, claimed.region);
        let canonical = sha256(self.canonical(&claimed.signed).as_bytes());
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", self.header("x-amz-date"));
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [claimed.day, claimed.region, "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        hex::encode(hmac(&key, to_sign.as_bytes()))
    }

    fn canonical(&self, signed: &[&str]) -> String {
        let mut query: Vec<&str> = self.uri.query().unwrap_or_default().split('&').collect();
        query.sort_unstable();
        let mut text = format!("{}\n{}\n{}\n", self.method, self.uri.path(), query.join("&"));
        for name in signed {
            let _ = writeln!(text, "{name}:{}", self.header(name).trim());
        }
        let _ = write!(text, "\n{}\n{}", signed.join(";"), self.header("x-amz-content-sha256"));
        text
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What the header `Authorization` says.
struct Claim<'a> {
    key_id: &'a str,
    day: &'a str,
    region: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field =
            |name: &str| rest.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let mut credential = field("Credential")?.split('/');
        let (key_id, day, region) = (credential.next()?, credential.next()?, credential.next()?);
        let is_whole = credential.eq(["s3", "aws4_request"]);
        let signed = field("SignedHeaders")?.split(';').collect();
        is_whole.then_some(Self { key_id, day, region, signed, signature: field("Signature")? })
    }
}

fn is_recent(date: &str) -> bool {
    let parsed = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", date).and_then(|broken| broken.to_datetime());
    let Ok(zoned) = parsed.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC)) else { return false };
    (zoned.timestamp().as_second() - jiff::Timestamp::now().as_second()).abs() <= SKEW
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(bytes);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the documentation of S3 gives, with its key and its result.
    #[test]
    fn the_published_example_has_its_published_signature() {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &str| headers.insert(name, value.parse().unwrap());
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        set("host", "examplebucket.s3.amazonaws.com");
        set("range", "bytes=0-9");
        set("x-amz-content-sha256", &sha256(b""));
        set("x-amz-date", "20130524T000000Z");
        set(
            "authorization",
            &format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature={signature}"
            ),
        );
        let uri = Uri::from_static("/test.txt");
        let signed = Signed { method: &Method::GET, uri: &uri, headers: &headers, body: b"" };
        let claimed = Claim::parse(signed.header("authorization")).unwrap();
        assert_eq!(signed.signature(&claimed, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), signature);
    }
}
