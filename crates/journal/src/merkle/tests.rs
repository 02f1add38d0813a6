//! The tree against known vectors, its own definition and another implementation.

use ct_merkle::RootHash;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

use super::*;

/// The data of the leaves in the test vectors that come with RFC 6962's first implementation.
const DATA: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// The roots over the first 1 to 8 of them.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(hex: &str) -> TreeHash {
    TreeHash(hex::decode(hex).unwrap().try_into().unwrap())
}

fn hashes(hex: &[&str]) -> Vec<TreeHash> {
    hex.iter().map(|hex| hash(hex)).collect()
}

/// The leaves of a tree of `size`, each with data of its own.
fn leaves(size: u64) -> Vec<TreeHash> {
    (0..size).map(|n| TreeHash::leaf_of(&n.to_be_bytes())).collect()
}

/// The root as RFC 6962 defines it, as slowly as it is defined.
fn mth(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => TreeHash::empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(reference_split(leaves.len()));
            TreeHash::node(mth(left), mth(right))
        }
    }
}

/// `PATH` of RFC 6962.
fn path(index: usize, leaves: &[TreeHash]) -> Vec<TreeHash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(reference_split(leaves.len()));
    if index < left.len() {
        [path(index, left), vec![mth(right)]].concat()
    } else {
        [path(index - left.len(), right), vec![mth(left)]].concat()
    }
}

/// `SUBPROOF` of RFC 6962.
fn subproof(old: usize, leaves: &[TreeHash], is_known: bool) -> Vec<TreeHash> {
    if old == leaves.len() {
        return if is_known { Vec::new() } else { vec![mth(leaves)] };
    }
    let (left, right) = leaves.split_at(reference_split(leaves.len()));
    if old <= left.len() {
        [subproof(old, left, is_known), vec![mth(right)]].concat()
    } else {
        [subproof(old - left.len(), right, false), vec![mth(left)]].concat()
    }
}

fn reference_split(size: usize) -> usize {
    (0..).map(|power| 1 << power).take_while(|power| *power < size).last().unwrap()
}

/// What stores the subtrees of a tree: here, the leaves.
fn reader(leaves: &[TreeHash]) -> impl FnMut(Subtree) -> Result<TreeHash, std::convert::Infallible> {
    move |Subtree { height, index }| {
        let width = 1 << height;
        let start = usize::try_from(index).unwrap() * width;
        Ok(mth(&leaves[start..start + width]))
    }
}

fn included(index: u64, leaves: &[TreeHash]) -> Vec<TreeHash> {
    let Ok(proof) = prove_inclusion(index, leaves.len() as u64, reader(leaves));
    proof
}

fn consistent(old: u64, leaves: &[TreeHash]) -> Vec<TreeHash> {
    let Ok(proof) = prove_consistency(old, leaves.len() as u64, reader(leaves));
    proof
}

#[test]
fn the_tree_is_that_of_the_known_vectors() {
    assert_eq!(TreeHash::empty(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    let leaves = DATA.map(|data| TreeHash::leaf_of(&hex::decode(data).unwrap()));
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root(), TreeHash::empty());
    for (leaf, root) in leaves.iter().zip(ROOTS) {
        frontier.append(*leaf);
        assert_eq!(frontier.root(), hash(root));
    }
    let proof = hashes(&[
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]);
    assert_eq!(included(0, &leaves), proof);
    assert_eq!(verify_inclusion(leaves[0], 0, 8, &proof, hash(ROOTS[7])), Ok(()));
    let proof = hashes(&[
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]);
    assert_eq!(consistent(6, &leaves), proof);
    assert_eq!(verify_consistency(6, hash(ROOTS[5]), 8, hash(ROOTS[7]), &proof), Ok(()));
}

#[test]
fn every_proof_in_a_small_tree_holds_as_defined_and_for_nothing_else() {
    for size in 1..=33_u64 {
        let leaves = leaves(size);
        let root = mth(&leaves);
        for index in 0..size {
            let place = usize::try_from(index).unwrap();
            let proof = included(index, &leaves);
            assert_eq!(proof, path(place, &leaves));
            for claimed in 0..=size {
                let verdict = verify_inclusion(leaves[place], claimed, size, &proof, root);
                assert_eq!(verdict.is_ok(), claimed == index, "{index} of {size} as {claimed}");
            }
        }
        for old in 1..=size {
            let place = usize::try_from(old).unwrap();
            let proof = consistent(old, &leaves);
            assert_eq!(proof, subproof(place, &leaves, true));
            for claimed in 1..=size {
                let old_root = mth(&leaves[..usize::try_from(claimed).unwrap()]);
                let verdict = verify_consistency(claimed, old_root, size, root, &proof);
                assert_eq!(verdict.is_ok(), claimed == old, "{old} of {size} as {claimed}: {verdict:?}");
                assert!(verify_consistency(old, TreeHash::empty(), size, root, &proof).is_err());
            }
        }
    }
}

#[test]
fn trees_without_leaves_and_trees_that_shrink_are_told_apart() {
    let (empty, one) = (TreeHash::empty(), leaves(1)[0]);
    assert_eq!(verify_consistency(0, empty, 1, one, &[]), Ok(()));
    assert_eq!(verify_consistency(0, one, 1, one, &[]), Err(Unproven::Root));
    assert_eq!(verify_consistency(0, empty, 1, one, &[one]), Err(Unproven::Length { found: 1 }));
    assert_eq!(verify_consistency(2, one, 1, one, &[]), Err(Unproven::Shrunk { old: 2, new: 1 }));
    assert_eq!(verify_inclusion(one, 0, 0, &[], empty), Err(Unproven::NoSuchLeaf { index: 0, size: 0 }));
    let huge = u64::MAX;
    assert!(verify_inclusion(one, huge - 1, huge, &[one; 63], empty).is_err());
    assert!(verify_consistency(huge - 1, one, huge, one, &[one; 64]).is_err());
}

#[test]
fn a_frontier_has_one_spelling() {
    let mut frontier = Frontier::default();
    for leaf in leaves(21) {
        let bytes = frontier.to_bytes();
        assert_eq!(Frontier::from_bytes(&bytes), Ok(frontier.clone()));
        assert_eq!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()), Err(FrontierError));
        assert_eq!(Frontier::from_bytes(&bytes[..bytes.len() - 1]), Err(FrontierError));
        frontier.append(leaf);
    }
}

proptest! {
    #[test]
    fn a_tree_of_any_size_agrees_with_its_definition_and_with_another_implementation(
        size in 1_u64..700,
        at in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let mine = leaves(size);
        let root = mth(&mine);
        let mut frontier = Frontier::default();
        mine.iter().for_each(|leaf| frontier.append(*leaf));
        prop_assert_eq!(frontier.root(), root);
        let Ok(again) = Frontier::of(size, reader(&mine));
        prop_assert_eq!(&again, &frontier);
        let Ok(root_again) = root_of(size, reader(&mine));
        prop_assert_eq!(root_again, root);

        let mut theirs = MemoryBackedTree::<Sha256, [u8; 8]>::new();
        (0..size).for_each(|n| theirs.push(n.to_be_bytes()));
        prop_assert_eq!(theirs.root().as_bytes()[..].to_vec(), root.as_bytes().to_vec());

        let index = at.index(mine.len());
        let proof = included(index as u64, &mine);
        prop_assert_eq!(&proof, &path(index, &mine));
        let bytes: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
        prop_assert_eq!(theirs.prove_inclusion(index).as_bytes().to_vec(), bytes);
        prop_assert_eq!(verify_inclusion(mine[index], index as u64, size, &proof, root), Ok(()));

        let old = index + 1;
        let consistency = consistent(old as u64, &mine);
        let bytes: Vec<u8> = consistency.iter().flat_map(|hash| hash.0).collect();
        prop_assert_eq!(theirs.prove_consistency(mine.len() - old).as_bytes().to_vec(), bytes.clone());
        let old_root = mth(&mine[..old]);
        prop_assert_eq!(verify_consistency(old as u64, old_root, size, root, &consistency), Ok(()));
        let old_theirs = RootHash::<Sha256>::new(old_root.0.into(), old as u64);
        let their_proof = ct_merkle::ConsistencyProof::try_from_bytes(bytes).unwrap();
        prop_assert!(theirs.root().verify_consistency(&old_theirs, &their_proof).is_ok());

        for (proof, is_inclusion) in [(proof, true), (consistency, false)] {
            if proof.is_empty() {
                continue;
            }
            let mut flipped = proof.clone();
            let bit = flip.index(proof.len() * 256);
            flipped[bit / 256].0[bit % 256 / 8] ^= 1 << (bit % 8);
            let (shorter, longer) = (proof[1..].to_vec(), [&proof[..], &[root]].concat());
            for wrong in [flipped, shorter, longer] {
                let verdict = if is_inclusion {
                    verify_inclusion(mine[index], index as u64, size, &wrong, root)
                } else {
                    verify_consistency(old as u64, old_root, size, root, &wrong)
                };
                prop_assert!(verdict.is_err());
            }
        }
    }
}
