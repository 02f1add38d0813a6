//! Bearer tokens: the operator's, and one for each attempt and epoch.
//!
//! An attempt's token needs no store: it names the attempt and the epoch and carries a MAC under a key that is
//! derived from the operator's token. Whether the epoch is still the current one is for the ledger to say.

use hmac::{Hmac, KeyInit, Mac};
use model::{AttemptId, Epoch};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// What a bearer token lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// Everything that the API offers.
    Operator,
    /// Acting for one attempt in one epoch.
    Executor {
        /// The attempt.
        attempt: AttemptId,
        /// The epoch it was handed out with.
        epoch: Epoch,
    },
}

/// Checks and mints tokens. Holds only digests of the operator's token.
#[derive(Clone)]
pub struct Keyring {
    operator_digest: [u8; 32],
    attempt_key: [u8; 32],
}

impl Keyring {
    /// The keyring of an installation whose operator's token is `operator`.
    pub fn new(operator: &SecretString) -> Self {
        let token = operator.expose_secret().as_bytes();
        let derived = mac(&Sha256::digest(token), b"leviathan-attempt-token-key-v1");
        Self { operator_digest: Sha256::digest(token).into(), attempt_key: derived }
    }

    /// A token for one attempt in one epoch.
    pub fn mint(&self, attempt: &AttemptId, epoch: Epoch) -> SecretString {
        let subject = format!("{attempt}.{epoch}");
        let signature = hex::encode(mac(&self.attempt_key, subject.as_bytes()));
        SecretString::from(format!("lva.{subject}.{signature}"))
    }

    /// Who bears `token`; `None` when it is none of ours. Takes the same time for every token of a length.
    pub fn bearer(&self, token: &str) -> Option<Bearer> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if bool::from(digest.ct_eq(&self.operator_digest)) {
            return Some(Bearer::Operator);
        }
        let (subject, signature) = token.strip_prefix("lva.")?.rsplit_once('.')?;
        let expected = mac(&self.attempt_key, subject.as_bytes());
        if !bool::from(hex::decode(signature).ok()?.ct_eq(&expected[..])) {
            return None;
        }
        let (attempt, epoch) = subject.rsplit_once('.')?;
        Some(Bearer::Executor { attempt: AttemptId::parse(attempt).ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_speaks_for_its_attempt_and_epoch_alone() {
        let keyring = Keyring::new(&SecretString::from("operator-token"));
        let attempt = AttemptId::parse("attempt-abc123").unwrap();
        let token = keyring.mint(&attempt, Epoch(2));
        let token = token.expose_secret();
        assert_eq!(keyring.bearer(token), Some(Bearer::Executor { attempt, epoch: Epoch(2) }));
        assert_eq!(keyring.bearer("operator-token"), Some(Bearer::Operator));
        for forged in [
            token.replace("abc123", "abc124"),
            token.replace(".2.", ".3."),
            token[..token.len() - 1].to_owned(),
            String::new(),
            "lva.".to_owned(),
            "lva.attempt-a.1.00".to_owned(),
        ] {
            assert_eq!(keyring.bearer(&forged), None, "{forged}");
        }
        let other = Keyring::new(&SecretString::from("another"));
        assert_eq!(other.bearer(token), None);
    }
}
