//! Listens for changes of our objects, only to look sooner. A watch that ends, lags behind or is refused costs
//! nothing but time: the next look lists everything.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;

use super::job::SELECTOR;
use super::{Unanswered, call};

/// How long to wait before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_secs(5);
/// After how many seconds the server ends a watch by itself; connections that died silently end so as well.
const ENDS_AFTER: u32 = 240;

/// Tells `changes` of every change for as long as the runtime lives.
pub(super) fn listen<K>(api: Api<K>, changes: Sender<usize>)
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            let watched =
                tokio::time::timeout(Duration::from_secs(ENDS_AFTER.into()) + PAUSE, watch(&api, &changes));
            if let Ok(Err(error)) = watched.await {
                tracing::debug!(%error, "a watch ended; it begins anew");
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}

async fn watch<K>(api: &Api<K>, changes: &Sender<usize>) -> Result<(), Unanswered>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let now = call(api.list(&ListParams::default().labels(SELECTOR).limit(1))).await?;
    let from = now.metadata.resource_version.unwrap_or_default();
    let parameters = WatchParams::default().labels(SELECTOR).timeout(ENDS_AFTER);
    let mut events = Box::pin(call(api.watch(&parameters, &from)).await?);
    while let Some(event) = events.try_next().await.map_err(Unanswered::Kube)? {
        match event {
            WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {
                changes.send_modify(|count| *count = count.wrapping_add(1));
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(Unanswered::Kube(kube::Error::Api(status))),
        }
    }
    Ok(())
}
