//! Which of several schedulers makes the passes. The Lease only saves effort: two that both make a pass do no harm,
//! because a claim is decided by the control plane. So when the Lease cannot be read, the pass is made.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::launch::kubernetes::{Unanswered, call};

/// How long a scheduler that says nothing keeps the Lease.
const DURATION: Duration = Duration::from_secs(60);

/// A Lease, and what this scheduler knows of it.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    holder: String,
    /// Another's entry, and when this process first saw it: clocks of different machines are never compared.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Leadership {
    /// The Lease `name` of `namespace`, for a scheduler that calls itself `holder`.
    pub fn new(client: Client, namespace: &str, name: String, holder: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name, holder, seen: None }
    }

    /// Takes or keeps the Lease, and says whether this scheduler has it at `now`.
    ///
    /// # Errors
    ///
    /// Why nobody can tell.
    pub(crate) async fn hold(&mut self, now: Instant) -> Result<bool, String> {
        let held = match call(self.api.get_opt(&self.name)).await {
            Ok(None) => self.write(None).await,
            Ok(Some(lease)) if self.may_take(&lease, now) => self.write(Some(lease)).await,
            Ok(Some(_)) => return Ok(false),
            Err(error) => Err(error),
        };
        match held {
            Ok(()) => Ok(true),
            // Somebody was faster.
            Err(Unanswered::Kube(kube::Error::Api(status))) if status.code == 409 => Ok(false),
            Err(error) => Err(format!("the Lease {} cannot be used: {error}", self.name)),
        }
    }

    /// Gives the Lease back, so that the next scheduler need not wait.
    pub(crate) async fn release(&mut self) {
        let Ok(Some(mut lease)) = call(self.api.get_opt(&self.name)).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.holder) {
            spec.holder_identity = None;
            if let Err(error) = call(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
                tracing::debug!(%error, "the Lease is not given back; it runs out by itself");
            }
        }
    }

    /// Whether the Lease is ours, nobody's, or has not changed for as long as it lasts.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        match spec.holder_identity.as_deref() {
            None | Some("") => return true,
            Some(holder) if holder == self.holder => return true,
            Some(_) => {}
        }
        match &self.seen {
            Some((seen, since)) if *seen == spec => now.duration_since(*since) > duration(&spec),
            Some(_) | None => {
                self.seen = Some((spec, now));
                false
            }
        }
    }

    /// Writes our name. What was read must still be there: the version that it carries decides.
    async fn write(&mut self, lease: Option<Lease>) -> Result<(), Unanswered> {
        let now = MicroTime(Timestamp::now());
        let is_new = lease.is_none();
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.holder) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(-1) + 1);
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        if is_new {
            call(self.api.create(&PostParams::default(), &lease)).await?;
        } else {
            call(self.api.replace(&self.name, &PostParams::default(), &lease)).await?;
        }
        self.seen = None;
        Ok(())
    }
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership")
            .field("name", &self.name)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use test_support::kubernetes::{Cluster, Fault, Harm, NAMESPACE};

    use super::*;

    async fn client(cluster: &Cluster) -> Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&cluster.kubeconfig()).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    async fn leadership(cluster: &Cluster, holder: &str) -> Leadership {
        Leadership::new(client(cluster).await, NAMESPACE, "leviathan-scheduler".to_owned(), holder.to_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_holds_the_lease_until_it_gives_it_back_or_says_nothing_for_its_time() {
        let cluster = Cluster::start();
        let now = Instant::now();
        let (mut first, mut second) = (leadership(&cluster, "a").await, leadership(&cluster, "b").await);
        assert_eq!(first.hold(now).await, Ok(true));
        assert_eq!(second.hold(now).await, Ok(false));
        assert_eq!(first.hold(now).await, Ok(true), "it keeps what it has");
        first.release().await;
        assert_eq!(second.hold(now).await, Ok(true));
        assert_eq!(first.hold(now).await, Ok(false));
        second.release().await;
        assert_eq!(first.hold(now).await, Ok(true));

        // The holder fell silent: what counts is how long this process has seen no change, and nobody's clock.
        assert_eq!(second.hold(now).await, Ok(false));
        assert_eq!(second.hold(now + DURATION / 2).await, Ok(false));
        assert_eq!(second.hold(now + DURATION * 2).await, Ok(true));
        let lease = cluster.object("leases", "leviathan-scheduler").unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "b");
        // The one that slept is not given it back by its own belief.
        assert_eq!(first.hold(now).await, Ok(false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lease_that_cannot_be_read_is_told_and_not_taken_for_lost() {
        let cluster = Cluster::start();
        let now = Instant::now();
        let mut only = leadership(&cluster, "a").await;
        cluster.fault(Fault { method: "get", resource: "leases", nth: 1, harm: Harm::Unavailable });
        let told = only.hold(now).await.unwrap_err();
        assert!(told.starts_with("the Lease leviathan-scheduler cannot be used"), "{told}");
        assert_eq!(only.hold(now).await, Ok(true));
    }
}
