//! Runs every target over its seeds and over mutations of them, the same ones each time.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::path::Path;

use leviathan_harness::TARGETS;

/// For each target. More than this is the work of `cargo fuzz`.
const MUTATIONS: usize = 3_000;
/// For the target that makes files, which takes far longer.
const MUTATIONS_OF_FILES: usize = 300;

#[test]
fn every_target_holds_for_its_seeds_and_their_mutations() {
    for (name, target) in TARGETS {
        let seeds = seeds_of(name);
        assert!(seeds.len() >= 2, "{name} has too few seeds");
        seeds.iter().for_each(|seed| target(seed));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mutations = if name == "tool_paths" { MUTATIONS_OF_FILES } else { MUTATIONS };
        for _ in 0..mutations {
            target(&mutated(&seeds, &mut random));
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let program = std::fs::read_to_string(folder.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("leviathan_harness::{name}(")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

fn seeds_of(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// A seed with a few of its bytes flipped, left out, doubled or replaced by ones that mean something somewhere, or
/// with a part of another seed.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\n\r\t\x1b:/\\.*?[]{}!-'\"#&<>|%@`,\xff\xc3\xe2\x80\xae";
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                let to = (from + random.below(40)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => bytes.insert(at, TELLING[random.below(TELLING.len())]),
        }
    }
    bytes
}

/// Marsaglia's xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
