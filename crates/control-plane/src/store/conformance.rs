//! What every store must do, run by each of them on an empty store of its own.

use journal::{Bundle, BundleId, CanonicalBody, Head, Unchained};

use super::{AppendError, EventStore};

/// Runs the whole suite; `empty` opens a new, empty store each time.
pub(crate) fn check(empty: impl Fn() -> Box<dyn EventStore>) {
    appends_in_order_and_reads_back(&*empty());
    appends_several_bundles_at_once(&*empty());
    gives_a_turn_back_unused(&*empty());
    reads_any_range(&*empty());
    gives_turns_to_one_at_a_time(&*empty());
}

/// A body that names itself.
pub(crate) fn body(name: &str) -> CanonicalBody {
    CanonicalBody::admit(format!(r#"{{"event_id":"{name}"}}"#).as_bytes()).unwrap()
}

/// A bundle of bodies of these names.
pub(crate) fn bundle(names: &[&str]) -> Unchained {
    let bodies = names.iter().map(|name| body(name)).collect();
    Unchained::new(BundleId::parse("bundle").unwrap(), bodies).unwrap()
}

/// Appends bodies of these names as one bundle.
pub(crate) fn append(store: &dyn EventStore, names: &[&str]) -> Result<Bundle, AppendError> {
    Ok(store.turn()?.append(vec![bundle(names)])?.pop().unwrap())
}

/// Every body of the store, in order; the records must chain from the first to the head.
pub(crate) fn contents(store: &dyn EventStore) -> Vec<String> {
    let mut contents = Vec::new();
    let mut last: Option<Head> = None;
    loop {
        let records = store.read(contents.len() as u64 + 1, 7).unwrap();
        if records.is_empty() {
            assert_eq!(last.map_or(0, |head| head.seq), store.head().seq);
            return contents;
        }
        for record in records {
            assert!(last.is_none_or(|head| record.follows(head)));
            assert_eq!(record.seq(), contents.len() as u64 + 1);
            last = Some(record.head());
            contents.push(record.body().as_str().to_owned());
        }
    }
}

fn appends_in_order_and_reads_back(store: &dyn EventStore) {
    assert_eq!(store.head().seq, 0);
    assert!(store.read(1, 10).unwrap().is_empty());
    let first = append(store, &["a", "b"]).unwrap();
    let second = append(store, &["c"]).unwrap();
    assert!(second.records()[0].follows(first.head()));
    assert_eq!(store.head(), second.head());
    assert_eq!(contents(store), [body("a"), body("b"), body("c")].map(|b| b.as_str().to_owned()));
}

fn appends_several_bundles_at_once(store: &dyn EventStore) {
    append(store, &["a"]).unwrap();
    let head = store.head();
    let turn = store.turn().unwrap();
    assert_eq!(turn.head(), head);
    let bundles = turn.append(vec![bundle(&["b", "c"]), bundle(&["d"])]).unwrap();
    assert_eq!(bundles.len(), 2);
    assert!(bundles[0].records()[0].follows(head) && bundles[1].records()[0].follows(bundles[0].head()));
    assert_eq!(store.head(), bundles[1].head());
    assert_eq!(contents(store).len(), 4);
    assert!(store.turn().unwrap().append(Vec::new()).unwrap().is_empty());
    assert_eq!(store.head().seq, 4);
}

fn gives_a_turn_back_unused(store: &dyn EventStore) {
    drop(store.turn().unwrap());
    assert_eq!(store.head().seq, 0);
    append(store, &["a"]).unwrap();
}

fn reads_any_range(store: &dyn EventStore) {
    for n in 0..10 {
        append(store, &[&format!("{n}-x"), &format!("{n}-y")]).unwrap();
    }
    for from in 1..=21 {
        for limit in [0, 1, 3, 100] {
            let records = store.read(from, limit).unwrap();
            let available = 21_usize.saturating_sub(from as usize).min(limit);
            assert!(records.len() <= available && records.is_empty() == (available == 0), "{from} {limit}");
            assert!(records.iter().zip(from..).all(|(record, seq)| record.seq() == seq));
        }
    }
    assert!(store.read(u64::MAX, 5).unwrap().is_empty());
}

fn gives_turns_to_one_at_a_time(store: &dyn EventStore) {
    let append_after_what_is_there = |thread: usize| {
        for n in 0..10 {
            let turn = store.turn().unwrap();
            let head = turn.head();
            let appended = turn.append(vec![bundle(&[&format!("{thread}-{n}")])]).unwrap();
            assert!(appended[0].records()[0].follows(head));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || append_after_what_is_there(thread));
        }
    });
    let mut contents = contents(store);
    contents.sort();
    contents.dedup();
    assert_eq!(contents.len(), 40);
}
