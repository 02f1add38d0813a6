//! The network of an attempt: which hosts its commands reach, and what they asked for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use model::documents;
use model::event::{EventKind, NetworkReported, NetworkRequest, NetworkUse, SandboxLayer};

use super::{Stop, Work};
use crate::contain::{Containment, Walls};
use crate::network::{Hosts, PrivateHost, Proxy, Tally};

/// Without namespaces a command could be given every host at one port, or none.
const NEEDS_NAMESPACES: &str = "the policy opens hosts by `network`, and only namespaces can give a command a way to \
     these alone. Install bubblewrap where user namespaces can be made, or leave `network` out and bring what \
     commands need in the image. `leviathan doctor` says what is missing";

/// The network of one attempt.
pub(super) struct Network {
    hosts: [(NetworkUse, Hosts); 3],
    private: Vec<PrivateHost>,
    tally: Tally,
    /// What was recorded, for the pull request.
    reported: Mutex<Vec<NetworkRequest>>,
    reports: AtomicU32,
}

impl Network {
    pub(super) fn new(policy: &documents::Network, private: &[PrivateHost]) -> Self {
        let documents::Network { agent, setup, checks } = policy.clone();
        Self {
            hosts: [
                (NetworkUse::Agent, Hosts::new(agent)),
                (NetworkUse::Setup, Hosts::new(setup)),
                (NetworkUse::Checks, Hosts::new(checks)),
            ],
            private: private.to_vec(),
            tally: Tally::default(),
            reported: Mutex::default(),
            reports: AtomicU32::new(0),
        }
    }

    /// Whether these walls can let commands reach some hosts and no others. Without any walls they reach all.
    pub(super) fn can_be_opened(&self, walls: &Walls) -> Result<(), &'static str> {
        let is_closed = self.hosts.iter().all(|(_, hosts)| hosts.is_empty());
        if is_closed || walls.bubblewrap().is_some() || !walls.has_filters() {
            Ok(())
        } else {
            Err(NEEDS_NAMESPACES)
        }
    }

    /// Commands of this use, contained like `containment`, with a way to the hosts that the policy opens for them.
    pub(super) fn reached_from(&self, used_by: NetworkUse, containment: &Containment) -> Containment {
        let open = self.hosts.iter().find(|(of, hosts)| *of == used_by && !hosts.is_empty());
        match open {
            None => containment.clone(),
            Some((_, hosts)) => containment.clone().with_way_out(Proxy::new(
                used_by,
                hosts.clone(),
                self.private.clone(),
                self.tally.clone(),
            )),
        }
    }

    /// The network as a layer of the sandbox.
    pub(super) fn layer(&self, walls: &Walls) -> SandboxLayer {
        let open: Vec<String> = self
            .hosts
            .iter()
            .filter(|(_, hosts)| !hosts.is_empty())
            .map(|(used_by, hosts)| format!("{used_by} {hosts}"))
            .collect();
        let detail = if !walls.has_filters() {
            "switched off by the operator: every host can be reached".to_owned()
        } else if open.is_empty() {
            "no host can be reached".to_owned()
        } else {
            format!("only by the proxy, and only: {}", open.join("; "))
        };
        SandboxLayer { name: "network".to_owned(), holds: walls.has_filters(), detail }
    }

    /// Everything that was recorded so far.
    pub(super) fn reported(&self) -> Vec<NetworkRequest> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Work<'_> {
    /// Records what was asked since the last time, if anything was. No command may run.
    pub(super) fn record_network(&self) -> Result<(), Stop> {
        let (requests, omitted) = self.network.tally.take();
        if requests.is_empty() && omitted == 0 {
            return Ok(());
        }
        self.network.reported.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&requests);
        let number = self.network.reports.fetch_add(1, Ordering::Relaxed);
        self.record(EventKind::NetworkReported(NetworkReported { requests, omitted }), &number.to_string())
    }
}
