//! The spellings in which a known secret may appear.

use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Shorter values would tear ordinary text apart.
const SHORTEST: usize = 8;
/// Of a longer secret its beginning is looked for, so that every spelling is found in a bounded window.
const LONGEST: usize = 4096;

/// As it is, as JSON and URLs quote it or every byte of it, in hexadecimal, and in base64 wherever in the encoded text it
/// stands.
pub(super) fn of(secret: &str) -> Vec<Vec<u8>> {
    let secret = secret.trim();
    let bytes = &secret.as_bytes()[..secret.len().min(LONGEST)];
    if bytes.len() < SHORTEST {
        return Vec::new();
    }
    let mut spellings = vec![
        bytes.to_vec(),
        in_json(secret),
        percent_encoded(bytes, false),
        percent_encoded(bytes, true),
        hex::encode(bytes).into_bytes(),
        hex::encode_upper(bytes).into_bytes(),
    ];
    // These are the longest, up to six characters for a byte.
    let beginning = &bytes[..bytes.len().min(LONGEST / 2)];
    for escape in ["%", "\\u00", "\\x"] {
        spellings.push(every_byte(beginning, escape, hex::encode));
        spellings.push(every_byte(beginning, escape, hex::encode_upper));
    }
    for shift in 0..3 {
        spellings.push(in_base64(bytes, shift, &STANDARD));
        spellings.push(in_base64(bytes, shift, &URL_SAFE));
    }
    spellings.retain(|spelling| spelling.len() >= SHORTEST);
    spellings.sort();
    spellings.dedup();
    spellings
}

fn in_json(secret: &str) -> Vec<u8> {
    let quoted = serde_json::to_string(secret).expect("text is JSON").into_bytes();
    let inner = &quoted[1..quoted.len() - 1];
    inner[..inner.len().min(LONGEST)].to_vec()
}

fn percent_encoded(bytes: &[u8], lower: bool) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => vec![*byte],
        byte if lower => format!("%{byte:02x}").into_bytes(),
        byte => format!("%{byte:02X}").into_bytes(),
    };
    bytes.iter().flat_map(encode).collect()
}

/// Every byte by its number, also where nothing asks for it.
fn every_byte(bytes: &[u8], escape: &str, number: fn([u8; 1]) -> String) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{escape}{}", number([*byte])).into_bytes()).collect()
}

/// The characters that depend on nothing but the secret when `shift` bytes (modulo three) precede it.
fn in_base64(bytes: &[u8], shift: usize, alphabet: &impl base64::Engine) -> Vec<u8> {
    let padded = [&[0; 3][..shift], bytes].concat();
    let encoded = alphabet.encode(&padded).into_bytes();
    let first = (shift * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    encoded[first..whole].to_vec()
}
