//! How executors are started: as processes of this machine, or as Jobs of a Kubernetes cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use scheduler::launch::Kubernetes;
use scheduler::launch::kubernetes;
use scheduler::{Config, ConfigMaps, Launcher, Leadership};

use super::duration;

/// What an executor in a pod is given of the scheduler's environment. Nothing of it is a secret: those come from the
/// Secret of the installation.
const PASSED_ON: &[&str] = &[
    "ANTHROPIC_BASE_URL",
    "GITHUB_API_URL",
    "HTTPS_PROXY",
    "LEVIATHAN_COMMAND_PATH",
    "LEVIATHAN_LOG",
    "LEVIATHAN_MODEL",
    "LEVIATHAN_MODEL_PRICES",
    "LEVIATHAN_SANDBOX",
    "LEVIATHAN_SANDBOX_READ",
    "LEVIATHAN_PRIVATE_HOSTS",
    "SSL_CERT_FILE",
];

/// What starts executors.
#[derive(Args)]
#[command(next_help_heading = "Launcher")]
pub(super) struct LauncherSettings {
    /// Where executors run
    #[arg(long, env = "LEVIATHAN_LAUNCHER", value_enum, default_value = "worktree")]
    launcher: LauncherName,
    /// The namespace of the executors' Jobs and of the targets' ConfigMaps [default: the scheduler's own]
    #[arg(long, env = "LEVIATHAN_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Our own image, for Jobs
    #[arg(long, env = "LEVIATHAN_IMAGE", value_name = "IMAGE")]
    image: Option<String>,
    /// The image in which agents and checks run, for targets that name none [default: our own]
    #[arg(long, env = "LEVIATHAN_EXECUTOR_IMAGE", value_name = "IMAGE")]
    executor_image: Option<String>,
    /// When the images of Jobs are pulled: Always, IfNotPresent or Never
    #[arg(long, env = "LEVIATHAN_IMAGE_PULL_POLICY", value_name = "POLICY", default_value = "IfNotPresent")]
    #[arg(value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: String,
    /// Where the control plane is for a pod [default: where it is for the scheduler]
    #[arg(long, env = "LEVIATHAN_EXECUTOR_CONTROL_PLANE_URL", value_name = "URL")]
    executor_control_plane_url: Option<String>,
    /// The Secret with ANTHROPIC_API_KEY and GITHUB_TOKEN
    #[arg(long, env = "LEVIATHAN_SECRET", value_name = "NAME", default_value = "leviathan-secrets")]
    secret: String,
    /// The service account of the executors' pods; it needs no right, and its token is not mounted
    #[arg(long, env = "LEVIATHAN_EXECUTOR_SERVICE_ACCOUNT", value_name = "NAME")]
    #[arg(default_value = "leviathan-executor")]
    executor_service_account: String,
    /// The processors that an agent and its checks ask for
    #[arg(long, env = "LEVIATHAN_EXECUTOR_CPU", value_name = "QUANTITY", default_value = "1")]
    executor_cpu: String,
    /// The memory that an agent and its checks ask for and may not exceed
    #[arg(long, env = "LEVIATHAN_EXECUTOR_MEMORY", value_name = "QUANTITY", default_value = "2Gi")]
    executor_memory: String,
    /// The disk that an agent and its checks ask for and may not exceed
    #[arg(long, env = "LEVIATHAN_EXECUTOR_DISK", value_name = "QUANTITY", default_value = "8Gi")]
    executor_disk: String,
    /// The runtime class of the executors' pods
    #[arg(long, env = "LEVIATHAN_EXECUTOR_RUNTIME_CLASS", value_name = "NAME")]
    executor_runtime_class: Option<String>,
    /// How long a pod may wait for a node or a quota
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    unscheduled_after: Duration,
    /// How long a container may wait for its image or its start
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pending_after: Duration,
    /// The Lease by which several schedulers agree on who makes the passes
    #[arg(long, env = "LEVIATHAN_LEASE_NAME", value_name = "NAME", default_value = "leviathan-scheduler")]
    lease: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LauncherName {
    /// As processes of this machine
    Worktree,
    /// As Jobs of a Kubernetes cluster
    Kubernetes,
}

impl LauncherSettings {
    /// The configuration of a scheduler on this machine, or the same for a cluster.
    pub(super) async fn apply(self, config: Config) -> anyhow::Result<Config> {
        match self.launcher {
            LauncherName::Worktree => Ok(config),
            LauncherName::Kubernetes => self.in_cluster(config).await,
        }
    }

    async fn in_cluster(self, config: Config) -> anyhow::Result<Config> {
        let Some(image) = self.image.clone() else {
            bail!("LEVIATHAN_IMAGE is not set: name the image with this program, which Jobs are made from")
        };
        let mut access = kube::Config::infer().await.context(
            "the cluster is not known: neither a service account of a pod nor a kubeconfig was found (KUBECONFIG)",
        )?;
        // Trying again is the next pass, not a call that sleeps.
        access.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| access.default_namespace.clone());
        let client = kube::Client::try_from(access).context("the cluster cannot be spoken to")?;
        Ok(self.with(client, &namespace, image, config))
    }

    /// The same with a cluster that is known already. Begins to listen to it.
    pub(super) fn with(self, client: kube::Client, namespace: &str, image: String, config: Config) -> Config {
        let settings = kubernetes::Settings {
            executor_image: self.executor_image.unwrap_or_else(|| image.clone()),
            image,
            control_plane: self.executor_control_plane_url.unwrap_or_else(|| config.client.base().to_owned()),
            secret: self.secret,
            service_account: self.executor_service_account,
            cpu: self.executor_cpu,
            memory: self.executor_memory,
            disk: self.executor_disk,
            runtime_class: self.executor_runtime_class.filter(|class| !class.is_empty()),
            image_pull_policy: self.image_pull_policy,
            unscheduled_after: self.unscheduled_after,
            pending_after: self.pending_after,
            environment: passed_on(),
        };
        let launcher = Kubernetes::new(client.clone(), namespace.to_owned(), settings);
        launcher.listen();
        let holder = config.actor.to_string();
        Config {
            launcher: Launcher::Kubernetes(Box::new(launcher)),
            config_maps: Some(ConfigMaps::new(client.clone(), namespace)),
            leadership: Some(Leadership::new(client, namespace, self.lease, holder)),
            ..config
        }
    }
}

fn passed_on() -> BTreeMap<String, String> {
    let given = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    given.filter(|(_, value)| !value.is_empty()).collect()
}
