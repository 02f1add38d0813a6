//! The store lets in nobody who is not known. (Who is let in is seen where a client of ours meets it.)
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{Read, Write};
use std::net::TcpStream;

use leviathan_test_support::s3::{BUCKET, KEY_ID, REGION, S3};

fn asked(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{head}\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_sign_is_refused() {
    let s3 = S3::start().await;
    let [(_, endpoint), ..] = s3.variables();
    let address = endpoint.trim_start_matches("http://").to_owned();
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let signed_by = |key_id: &str, day: &str, region: &str| {
        format!(
            "authorization: AWS4-HMAC-SHA256 Credential={key_id}/{day}/{region}/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
        )
    };
    let day = &now[..8];
    for (header, code) in [
        (String::new(), "AccessDenied"),
        ("authorization: Bearer x".to_owned(), "AccessDenied"),
        (signed_by("AKIAOTHER", day, REGION), "InvalidAccessKeyId"),
        (signed_by(KEY_ID, day, "us-east-1"), "AuthorizationHeaderMalformed"),
        (signed_by(KEY_ID, "20200101", REGION), "RequestTimeTooSkewed"),
        (signed_by(KEY_ID, day, REGION) + "\r\nx-amz-extra: 1", "AccessDenied"),
        (signed_by(KEY_ID, day, REGION), "XAmzContentSHA256Mismatch"),
    ] {
        let header = if header.is_empty() { "accept: */*".to_owned() } else { header };
        let head = format!("GET /{BUCKET}/key HTTP/1.1\r\nx-amz-date: {now}\r\n{header}");
        let answer = tokio::task::spawn_blocking({
            let address = address.clone();
            move || asked(&address, &head)
        });
        let answer = answer.await.unwrap();
        assert!(answer.contains(&format!("<Code>{code}</Code>")), "{header}: {answer}");
    }
}
