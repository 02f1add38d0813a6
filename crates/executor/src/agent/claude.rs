//! The Claude agent: the Messages API, a closed set of tools, and limits that hold.

use crate::agent::{AgentFailure, AgentReport, Brief};
use crate::toolbox::Toolbox;

/// A conversation with a model, and what it may cost.
pub struct Claude {}

impl Claude {
    /// One round of work; see [`Agent::work`](crate::agent::Agent::work).
    pub(crate) async fn work(
        &mut self,
        _brief: &Brief,
        _toolbox: &Toolbox,
    ) -> Result<AgentReport, AgentFailure> {
        Err(AgentFailure {
            cause: crate::agent::FailureCause::Configuration { detail: "not there yet".to_owned() },
            usage: crate::agent::Usage::default(),
        })
    }
}
