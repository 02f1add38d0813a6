//! Notes and keys against the example of the specification and another implementation.

use proptest::prelude::*;
use signed_note::{StandardSigner, StandardVerifier, VerifierList};

use super::*;

/// The example of the specification.
const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

fn key() -> SigningKey {
    SigningKey::from_seed(KeyName::parse("leviathan/test").unwrap(), &[3; 32])
}

#[test]
fn the_example_of_the_specification_verifies() {
    let key: VerifierKey = VKEY.parse().unwrap();
    assert_eq!(
        (key.name().as_str(), key.id(), key.to_string()),
        ("example.com/foo", 0x530d_903a, VKEY.into())
    );
    let note = Note::open(EXAMPLE, &key).unwrap();
    assert_eq!(note.text(), "This is an example message.\n");
    assert_eq!(note.to_string(), EXAMPLE);
    let other = key.name().clone();
    let other = SigningKey::from_seed(other, &[1; 32]).verifier();
    assert!(matches!(note.verify(&other), Err(NoteError::Unsigned { .. })));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_note_is_refused() {
    let key: VerifierKey = VKEY.parse().unwrap();
    for at in 0..EXAMPLE.len() {
        for bit in 0..8 {
            let mut flipped = EXAMPLE.as_bytes().to_vec();
            flipped[at] ^= 1 << bit;
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(Note::open(&flipped, &key).is_err(), "byte {at}, bit {bit}");
        }
        assert!(!EXAMPLE.is_char_boundary(at) || Note::open(&EXAMPLE[..at], &key).is_err());
    }
}

#[test]
fn a_key_has_one_spelling_and_keeps_its_secret() {
    let secret = key().to_secret_text();
    assert_eq!(SigningKey::parse(&secret).unwrap().to_secret_text(), secret);
    assert_eq!(format!("{:?}", key()), format!("SigningKey({})", key().verifier()));
    let vkey = key().verifier().to_string();
    assert_eq!(vkey.parse(), Ok(key().verifier()));
    for at in 0..vkey.len() {
        let mut other = vkey.clone().into_bytes();
        other[at] ^= 1;
        let Ok(other) = String::from_utf8(other) else { continue };
        assert!(other.parse::<VerifierKey>().is_err(), "{other}");
    }
    for other in
        ["", "a", "a+b", "a+0000000g+AA==", &format!("{vkey} "), &vkey.to_uppercase(), &format!("+{vkey}")]
    {
        assert!(other.parse::<VerifierKey>().is_err(), "{other}");
    }
    for other in ["", "PRIVATE+KEY+a", &vkey, &secret.replace("PRIVATE", "private"), &format!("{secret}=")] {
        assert!(SigningKey::parse(other).is_err(), "{other}");
    }
    // A text that was copied wrong is refused before anything is signed with it.
    let last = secret.rfind('+').unwrap() + 5;
    let mut wrong = secret.into_bytes();
    wrong[last] = if wrong[last] == b'A' { b'B' } else { b'A' };
    assert!(matches!(SigningKey::parse(&String::from_utf8(wrong).unwrap()), Err(KeyError::Id(_))));
}

#[test]
fn what_is_no_note_is_refused() {
    let key = key();
    for text in ["", "no newline", "a\tb\n", "a\r\n"] {
        assert!(key.sign(text).is_err(), "{text:?}");
    }
    let note = key.sign("a\n\nb\n").unwrap().to_string();
    assert_eq!(Note::open(&note, &key.verifier()).unwrap().text(), "a\n\nb\n");
    let (_, line) = note.rsplit_once("\n\n").unwrap();
    for other in [
        String::new(),
        "a\n".to_owned(),
        "a\n\n".to_owned(),
        note.trim_end().to_owned(),
        format!("{note}\n"),
        note.replace('—', "-"),
        format!("{note}— leviathan/test AAAA\n"),
        format!("{note}{}", line.repeat(64)),
        format!("{}{note}", "x".repeat(MAX_NOTE_BYTES)),
    ] {
        assert!(Note::open(&other, &key.verifier()).is_err(), "{other:.80?}");
    }
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", "\u{7f}"] {
        assert!(KeyName::parse(name).is_err(), "{name:?}");
    }
}

#[test]
fn others_may_sign_below_but_no_wrong_signature_in_our_name_passes() {
    let (mine, other) = (key(), SigningKey::from_seed(KeyName::parse("witness.example").unwrap(), &[4; 32]));
    let (by_me, by_other) =
        (mine.sign("text\n").unwrap().to_string(), other.sign("text\n").unwrap().to_string());
    let line = |note: &str| note.rsplit_once("\n\n").unwrap().1.to_owned();
    let both = format!("{by_me}{}", line(&by_other));
    assert!(Note::open(&both, &mine.verifier()).is_ok() && Note::open(&both, &other.verifier()).is_ok());
    let foreign = line(&mine.sign("other\n").unwrap().to_string());
    let refused = Note::open(&format!("{both}{foreign}"), &mine.verifier());
    assert!(matches!(refused, Err(NoteError::Signature { .. })));
}

proptest! {
    #[test]
    fn notes_and_keys_are_those_of_an_independent_implementation(
        seed in any::<[u8; 32]>(),
        name in "[a-z/.ü0-9]{1,12}",
        text in "([ -~ü]{0,20}\n){1,4}",
    ) {
        let mine = SigningKey::from_seed(KeyName::parse(&name).unwrap(), &seed);
        let theirs = StandardSigner::new(&mine.to_secret_text()).unwrap();
        let their_verifier = StandardVerifier::new(&mine.verifier().to_string()).unwrap();
        let note = mine.sign(&text).unwrap().to_string();
        let mut their_note = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
        their_note.add_sigs(&[&theirs]).unwrap();
        prop_assert_eq!(their_note.to_bytes(), note.as_bytes());
        let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        prop_assert!(read.verify(&VerifierList::new(vec![Box::new(their_verifier)])).is_ok());
        prop_assert!(Note::open(&note, &mine.verifier()).is_ok());
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[—+a \n=]{0,60}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_string(), text.clone());
        }
        let _ = text.parse::<VerifierKey>();
        let _ = SigningKey::parse(&text);
    }
}
