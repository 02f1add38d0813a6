//! What every store must do, run by each of them on an empty store of its own.

use journal::{Bundle, BundleId, CanonicalBody, Head};

use super::{AppendError, EventStore};

/// Runs the whole suite; `empty` opens a new, empty store each time.
pub(crate) fn check(empty: impl Fn() -> Box<dyn EventStore>) {
    appends_in_order_and_reads_back(&*empty());
    refuses_a_stale_head(&*empty());
    refuses_what_is_no_bundle(&*empty());
    reads_any_range(&*empty());
    lets_exactly_one_of_many_win(&*empty());
}

/// A body that names itself.
pub(crate) fn body(name: &str) -> CanonicalBody {
    CanonicalBody::admit(format!(r#"{{"event_id":"{name}"}}"#).as_bytes()).unwrap()
}

/// Appends bodies of these names as one bundle at the present head.
pub(crate) fn append(store: &dyn EventStore, names: &[&str]) -> Result<Bundle, AppendError> {
    let bodies = names.iter().map(|name| body(name)).collect();
    store.append(store.head(), BundleId::parse("bundle").unwrap(), bodies)
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

fn refuses_a_stale_head(store: &dyn EventStore) {
    let stale = store.head();
    let bundle = append(store, &["a"]).unwrap();
    let error = store.append(stale, BundleId::parse("late").unwrap(), vec![body("b")]).unwrap_err();
    assert!(
        matches!(error, AppendError::Stale { expected, actual } if expected == stale && actual == bundle.head())
    );
    assert_eq!(contents(store).len(), 1);
}

fn refuses_what_is_no_bundle(store: &dyn EventStore) {
    assert!(matches!(append(store, &[]), Err(AppendError::Bundle(_))));
    let too_many = vec!["x"; journal::MAX_BUNDLE_EVENTS + 1];
    assert!(matches!(append(store, &too_many), Err(AppendError::Bundle(_))));
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

fn lets_exactly_one_of_many_win(store: &dyn EventStore) {
    let expected = store.head();
    let attempt =
        |n: usize| store.append(expected, BundleId::parse("b").unwrap(), vec![body(&n.to_string())]).is_ok();
    let wins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || attempt(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(wins, 1);
    assert_eq!(contents(store).len(), 1);
}
