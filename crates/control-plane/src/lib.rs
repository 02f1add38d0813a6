//! What happened: the event store, its only writer, the graph that follows from it, and the HTTP server in front.

#[expect(dead_code, unused_imports, reason = "the ledger, its only user, follows")]
mod store;
