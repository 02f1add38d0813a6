//! Every way in which the answer is no or there is none: what is said, and the exit code before the colon.

use api::{ErrorBody, ErrorCode};
use insta::assert_snapshot;

use super::answers::ATTEMPT;
use super::{Answer, ask, no};

#[test]
fn every_error_of_the_control_plane_says_what_to_do_next() {
    use ErrorCode::*;
    let codes = [
        BadRequest,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Timeout,
        IllegalStep,
        EventConflict,
        Fenced,
        NotClaimable,
        TooLarge,
        Invalid,
        Busy,
        Internal,
        Unavailable,
        DiskFull,
    ];
    let mut shown = String::new();
    for code in codes {
        let body = ErrorBody::new(code, format!("what happened ({})", code.status()));
        shown += &ask("targets-list", vec![no("GET /v1/targets", &body)]).refused();
        shown.push('\n');
    }
    assert_snapshot!(shown, @r"
    2: what happened (400); use a leviathanctl of the same version as the control plane
    2: what happened (401); set LEVIATHAN_CONTROL_PLANE_TOKEN to the token that the control plane was started with
    1: what happened (403); use the operator's token, not that of an attempt
    1: what happened (404)
    2: what happened (405); use a leviathanctl of the same version as the control plane
    2: what happened (408); try again in a moment
    1: what happened (409)
    1: what happened (409)
    1: what happened (409)
    1: what happened (409)
    1: what happened (413)
    1: what happened (422)
    2: what happened (429); try again in a moment
    2: what happened (500); look for the request in the log of the control plane
    2: what happened (503); restart the control plane; reads still work
    2: what happened (507); free space on the control plane's disk, then try again
    ");
}

#[test]
fn the_hint_of_the_control_plane_goes_before_our_own() {
    let body = ErrorBody {
        request_id: Some("r-17".to_owned()),
        ..ErrorBody::new(
            ErrorCode::IllegalStep,
            "attempt attempt-01khz4e8m0abcdef is completed: attempt.cancelled cannot follow",
        )
        .with_hint("invalidate it instead")
    };
    let answer = no("POST /v1/attempts/attempt-01khz4e8m0abcdef/cancel", &body);
    assert_snapshot!(ask(&format!("cancel {ATTEMPT} --reason stop"), vec![answer]).refused(), @"1: attempt attempt-01khz4e8m0abcdef is completed: attempt.cancelled cannot follow; invalidate it instead (request r-17)");
}

#[test]
fn an_answer_that_is_none_of_ours_is_named() {
    let answer =
        |status, body: &[u8]| vec![Answer { request: "GET /v1/targets", status, body: body.to_vec() }];
    for (status, body, expected) in [
        (200, &b"<html>hello</html>"[..], "answers, but not as a control plane of this version"),
        (200, b"{\"targets\":[{}]}", "missing field"),
        (418, b"short and stout", "HTTP status 418"),
        (302, b"", "HTTP status 302"),
    ] {
        let refused = ask("targets-list", answer(status, body)).refused();
        assert!(refused.starts_with("2: http://127.0.0.1:") && refused.contains(expected), "{refused}");
    }
}
