//! Control plane and scheduler in this process: what `leviathan up` runs, and what the demo and the benchmarks use.

use std::sync::Arc;

use anyhow::Context;
use api::Client;
use control_plane::Server;
use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Both roles, running.
pub(crate) struct Installation {
    url: String,
    client: Client,
    stop_scheduler: watch::Sender<bool>,
    stop_server: watch::Sender<bool>,
    scheduling: JoinHandle<Result<(), scheduler::Error>>,
    serving: JoinHandle<anyhow::Result<()>>,
    ended: Arc<Notify>,
}

impl Installation {
    /// Opens the log, listens, and begins to schedule. `scheduler` makes the scheduler's configuration for a client
    /// of this control plane.
    pub(crate) async fn start(
        config: control_plane::Config,
        scheduler: impl FnOnce(Client) -> anyhow::Result<scheduler::Config>,
    ) -> anyhow::Result<Self> {
        let token: SecretString = config.token.clone();
        let server = Server::bind(config).await?;
        let url = format!("http://{}", server.address());
        let client = Client::new(&url, token)?;
        let ended = Arc::new(Notify::new());
        let (stop_server, mut server_stops) = watch::channel(false);
        let serving = server.run(async move {
            let _ = server_stops.wait_for(|stop| *stop).await;
        });
        let (stop_scheduler, scheduler_stops) = watch::channel(false);
        let scheduling = scheduler::run(scheduler(client.clone())?, scheduler_stops);
        Ok(Self {
            url,
            client,
            stop_scheduler,
            stop_server,
            scheduling: tokio::spawn(telling(scheduling, Arc::clone(&ended))),
            serving: tokio::spawn(telling(serving, Arc::clone(&ended))),
            ended,
        })
    }

    /// Where the control plane listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A client with the operator's token.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Ready when a role has ended although nobody stopped it.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Stops the scheduler first, so that its last words are recorded. Executors go on; the next start finds them.
    ///
    /// # Errors
    ///
    /// What either role failed with.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop_scheduler.send_replace(true);
        let scheduled = self.scheduling.await.context("the scheduler met a bug")?;
        self.stop_server.send_replace(true);
        self.serving.await.context("the control plane met a bug")??;
        Ok(scheduled?)
    }
}

/// Carries out `role`, and tells `ended` when it is over.
async fn telling<T>(role: impl Future<Output = T>, ended: Arc<Notify>) -> T {
    let result = role.await;
    ended.notify_one();
    result
}
