//! Tiles against the examples of the specification and another implementation.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::merkle::{prove_consistency, prove_inclusion, root_of, verify_consistency, verify_inclusion};

fn leaf(n: u64) -> TreeHash {
    TreeHash::leaf_of(&n.to_be_bytes())
}

/// Stored tiles by name.
type Stored = BTreeMap<Tile, TileHashes>;

fn store(stored: &mut Stored, tree: &mut TileWriter) {
    stored.extend(tree.cut().into_iter().map(|hashes| (hashes.tile(), hashes)));
}

fn read(stored: &Stored) -> impl Fn(Tile) -> Result<TileHashes, Tile> {
    |tile| stored.get(&tile).cloned().ok_or(tile)
}

/// The same tile in the words of the independent implementation, whose paths also name the height.
fn theirs(tile: &Tile) -> tlog_tiles::Tile {
    tlog_tiles::Tile::new(HEIGHT, tile.level, tile.index, u32::from(tile.width), false)
}

#[test]
fn tiles_are_named_as_specified() {
    for (path, level, index, width) in [
        ("tile/0/000", 0, 0, 256),
        ("tile/0/x001/x234/067", 0, 1_234_067, 256),
        ("tile/1/x001/000.p/17", 1, 1_000, 17),
        ("tile/7/255.p/255", 7, 255, 255),
    ] {
        let tile = Tile { level, index, width };
        assert_eq!(Tile::parse(path), Ok(tile));
        assert_eq!(tile.to_string(), path);
        assert_eq!(format!("tile/8/{}", &path[5..]), theirs(&tile).path());
    }
    for path in [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/00/000",
        "tile/8/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1/2",
        "tile/0/../000",
        "/tile/0/000",
        "tile/0/+01",
        "tile/-1/000",
        "tile/0/000 ",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/entries/000",
    ] {
        assert!(Tile::parse(path).is_err(), "{path:?}");
    }
}

#[test]
fn the_example_of_the_specification_has_its_tiles() {
    let tiles: Vec<Tile> = Tile::between(0, 70_000).collect();
    let count = |level, is_full| tiles.iter().filter(|t| t.level == level && t.is_full() == is_full).count();
    assert_eq!([count(0, true), count(0, false), count(1, true), count(1, false)], [273, 1, 1, 1]);
    let partial: Vec<u16> = tiles.iter().filter(|tile| !tile.is_full()).map(|tile| tile.width).collect();
    assert_eq!(partial, [112, 17, 1]);
    let of_256: Vec<String> = Tile::between(0, 256).map(|tile| tile.to_string()).collect();
    assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(Tile::between(70_000, 70_000).count(), 0);
    assert!(Tile::between(0, u64::MAX).take(3).count() == 3);
}

#[test]
fn tiles_that_are_cut_as_the_tree_grows_give_every_root_and_proof() {
    let (mut tree, mut stored) = (TileWriter::default(), Stored::new());
    let mut sizes = Vec::new();
    let mut size = 0;
    // Across the first full tile of level 1.
    for step in [1, 1, 253, 1, 1, 700, 64_578, 3, 500] {
        (size..size + step).for_each(|n| tree.append(leaf(n)));
        size += step;
        store(&mut stored, &mut tree);
        sizes.push((size, tree.frontier().root()));
        let again = TileWriter::resume(size, read(&stored)).unwrap();
        assert_eq!((again.frontier(), &again.edge[0]), (tree.frontier(), &tree.edge[0]));
    }
    assert!(stored.keys().all(|tile| tile.is_in(size)));
    assert_eq!(Tile::in_tree(0, size / 256, size).map(|tile| tile.width), u16::try_from(size % 256).ok());
    let subtree = |size| move |subtree| (subtree, size);
    let at = |size, stored: &Stored| {
        let (place, stored) = (subtree(size), stored.clone());
        move |part| {
            let (part, size) = place(part);
            subtree_hash(part, size, read(&stored))
        }
    };
    let (last, last_root) = *sizes.last().unwrap();
    for tile in Tile::between(0, last).step_by(17).chain(Tile::between(last - 1, last)) {
        let found = read(&stored)(tile).unwrap();
        let verify = |tile: &TileHashes| {
            tile.verify(last, last_root, |tile| read(&stored)(tile).map_err(|_| Unproven::Root))
        };
        assert_eq!(verify(&found), Ok(()), "{tile}");
        for n in [0, found.hashes.len() / 2, found.hashes.len() - 1] {
            let mut wrong = found.clone();
            wrong.hashes[n] = leaf(last);
            assert!(verify(&wrong).is_err(), "{tile}, hash {n}");
        }
    }
    for (size, root) in &sizes {
        assert_eq!(root_of(*size, at(*size, &stored)), Ok(*root));
        let proof = prove_consistency(*size, last, at(last, &stored)).unwrap();
        assert_eq!(verify_consistency(*size, *root, last, last_root, &proof), Ok(()));
        for index in [0, size / 2, size - 1] {
            let proof = prove_inclusion(index, *size, at(*size, &stored)).unwrap();
            assert_eq!(verify_inclusion(leaf(index), index, *size, &proof, *root), Ok(()));
        }
    }
}

#[test]
fn a_tile_is_exactly_its_hashes() {
    let tile = Tile { level: 0, index: 0, width: 2 };
    let hashes = TileHashes { tile, hashes: vec![leaf(0), leaf(1)] };
    let bytes = hashes.to_bytes();
    assert_eq!(TileHashes::from_bytes(tile, &bytes), Ok(hashes.clone()));
    for wrong in [&bytes[..63], &[&bytes[..], &[0]].concat(), &bytes[..32], b""] {
        assert!(TileHashes::from_bytes(tile, wrong).is_err());
    }
    assert_eq!(hashes.narrowed(1).unwrap().hashes(), [leaf(0)]);
    assert_eq!((hashes.narrowed(0), hashes.narrowed(3)), (None, None));
}

proptest! {
    #[test]
    fn the_tiles_between_two_sizes_are_those_of_an_independent_implementation(
        old in 0_u64..200_000,
        more in 0_u64..3_000,
    ) {
        let mine: Vec<String> = Tile::between(old, old + more).map(|tile| theirs(&tile).path()).collect();
        let others = tlog_tiles::Tile::new_tiles(HEIGHT, old, old + more);
        prop_assert_eq!(mine, others.iter().map(tlog_tiles::Tile::path).collect::<Vec<_>>());
    }

    #[test]
    fn a_writer_cuts_the_tiles_that_are_named(steps in prop::collection::vec(0_u64..600, 1..6)) {
        let (mut tree, mut size) = (TileWriter::default(), 0);
        for step in steps {
            (size..size + step).for_each(|n| tree.append(leaf(n)));
            let mut cut: Vec<Tile> = tree.cut().iter().map(TileHashes::tile).collect();
            cut.sort();
            prop_assert_eq!(cut, Tile::between(size, size + step).collect::<Vec<_>>());
            size += step;
        }
    }

    #[test]
    fn every_path_that_parses_is_written_the_same(path in "tile/[0-9]{1,2}/(x[0-9]{3}/){0,3}[0-9]{3}(.p/[0-9]{1,3})?") {
        if let Ok(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.to_string(), path);
        }
    }
}
