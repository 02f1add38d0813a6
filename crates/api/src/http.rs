//! How every role calls another over HTTP: to the address that it was given and nowhere else.

use std::error::Error;
use std::time::Duration;

use reqwest::ClientBuilder;

/// A client that goes through no proxy and follows no redirect, because what is sent is meant for one receiver alone.
/// Over TLS only where that is asked for; a whole call takes at most `timeout`.
pub fn builder(is_secure: bool, timeout: Duration) -> ClientBuilder {
    // The error of a second installation only says that a provider is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("leviathan/", env!("CARGO_PKG_VERSION")));
    // Reading the machine's certificates takes longer than a whole call that needs none.
    if is_secure { builder } else { builder.tls_certs_only([]) }
}

/// What really went wrong: the innermost of the errors that are wrapped into each other.
pub fn root_cause(problem: &reqwest::Error) -> String {
    if problem.is_timeout() {
        return "it takes too long".to_owned();
    }
    let mut cause: &dyn Error = problem;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
