//! Where spans go: to a collector, over OTLP, if the standard variables of OpenTelemetry name one. Without one there is
//! nothing of this: no thread, no queue, no span.
//!
//! A thread of its own sends what has ended, out of a queue that drops what does not fit. So a collector that is slow or
//! away holds up nothing, and the end of the process no longer than [`LAST_WORDS`]. What is sent has gone through the
//! redactor, as every line of the log has.

mod http;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use model::secrets::Redactor;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TracerProvider as _};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_otlp::WithHttpConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanEvents, SpanExporter};
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// How long the end of the process waits for a collector to take the last spans.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long one call of a collector may take, unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the collector is; the first that is set counts.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The spans of this process on their way to a collector, if there is one. Dropped, it sends the last of them.
#[must_use = "the last spans are sent when it is dropped"]
#[derive(Default)]
pub(crate) struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// What the variables of OpenTelemetry ask for, for the role `service`: nothing unless they name a collector.
    pub(crate) fn of_environment(service: &'static str, redactor: &Redactor) -> anyhow::Result<Self> {
        if !is_wanted(variable) {
            return Ok(Self::default());
        }
        require_protocol(variable)?;
        let client = http::Client::new(timeout(variable), is_secure(variable))?;
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(client);
        let exporter = exporter.build().context("the variables of OpenTelemetry cannot be used")?;
        let exporter = Cleaned { redactor: redactor.clone(), exporter, fails: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
        let provider = provider.with_resource(resource(service)).build();
        api::trace::bear(present);
        Ok(Self { provider: Some(provider) })
    }

    /// What takes the spans of our own that are meant for a collector, and no event: lines of the log stay in the log.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let tracer = self.provider.as_ref()?.tracer("leviathan");
        let spans: OpenTelemetryLayer<S, _> = tracing_opentelemetry::layer().with_tracer(tracer);
        let spans = spans.with_location(false).with_threads(false).with_target(false).with_level(false);
        let spans = spans.with_tracked_inactivity(false);
        Some(spans.with_filter(filter_fn(|meta| meta.is_span() && meta.target() == api::trace::TARGET)))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            // What did not get through by then is lost, and nothing else with it.
            let _ = provider.shutdown_with_timeout(LAST_WORDS);
        }
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether the variables name a collector and nothing forbids to use it.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let is_other = variable("OTEL_TRACES_EXPORTER").is_some_and(|it| it != "otlp");
    ENDPOINTS.into_iter().any(|name| variable(name).is_some()) && !is_off && !is_other
}

fn require_protocol(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(protocol) = variable(name) {
            let told = "which is not spoken here: name the port at which the collector takes http/protobuf, most often 4318, and set it to that or unset it";
            ensure!(protocol == "http/protobuf", "{name} is {protocol:?}, {told}");
            return Ok(());
        }
    }
    Ok(())
}

fn is_secure(variable: impl Fn(&str) -> Option<String>) -> bool {
    ENDPOINTS.into_iter().find_map(variable).is_some_and(|url| url.trim().starts_with("https:"))
}

fn timeout(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let given = names.into_iter().find_map(variable).and_then(|it| it.trim().parse().ok());
    given.map_or(TIMEOUT, Duration::from_millis)
}

/// Who this is, for the collector: what the variables say, and the name of the role unless they name a service.
fn resource(service: &'static str) -> Resource {
    let named = Resource::builder().build();
    let name = named.get(&"service.name".into()).map(|name| name.to_string()).unwrap_or_default();
    let own = name.starts_with("unknown_service").then(|| KeyValue::new("service.name", service));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let attributes: Vec<KeyValue> = own.into_iter().chain([version]).collect();
    Resource::builder().with_attributes(attributes).build()
}

/// The present span as the header of W3C Trace Context has it.
fn present() -> Option<String> {
    let mut header = BTreeMap::new();
    let context = tracing::Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Header(&mut header));
    header.remove(api::trace::HEADER)
}

struct Header<'a>(&'a mut BTreeMap<String, String>);

impl opentelemetry::propagation::Injector for Header<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }
}

/// Takes the secrets out of each span, and says when sending begins to fail and when it works again.
#[derive(Debug)]
struct Cleaned<E> {
    redactor: Redactor,
    exporter: E,
    fails: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Cleaned<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(|span| clean(span, &self.redactor));
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) if self.fails.swap(false, Ordering::Relaxed) => {
                tracing::info!("The collector takes spans again.");
            }
            Ok(()) => {}
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "The collector does not take spans: they are lost, and everything else goes on. Look at OTEL_EXPORTER_OTLP_ENDPOINT and the collector.");
            }
            Err(_) => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn clean(span: &mut SpanData, redactor: &Redactor) {
    span.name = redactor.clean(&span.name).into();
    // We make neither; a library that did would put words of somebody there.
    span.events = SpanEvents::default();
    if let Status::Error { description } = &mut span.status {
        *description = redactor.clean(description).into();
    }
    for attribute in &mut span.attributes {
        if let Value::String(text) = &mut attribute.value {
            *text = redactor.clean(text.as_str()).into();
        } else if let Value::Array(Array::String(texts)) = &mut attribute.value {
            *texts = texts.iter().map(|text| redactor.clean(text.as_str()).into()).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::StringValue;
    use opentelemetry::trace::{Span as _, Tracer as _};

    use super::*;

    /// Keeps what it is given.
    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn a_secret_that_got_into_a_span_does_not_leave() {
        const SECRET: &str = "a-token-of-ours";
        let kept = Kept::default();
        let (redactor, fails) = (Redactor::new([SECRET]), AtomicBool::new(false));
        let cleaned = Cleaned { redactor, exporter: kept.clone(), fails };
        let provider = SdkTracerProvider::builder().with_simple_exporter(cleaned).build();
        let mut span = provider.tracer("test").start(format!("GET /{SECRET}"));
        span.set_attribute(KeyValue::new("text", format!("it is {SECRET}")));
        span.set_attribute(KeyValue::new("list", Value::Array(vec![StringValue::from(SECRET)].into())));
        span.set_attribute(KeyValue::new("number", 7));
        span.add_event(SECRET, vec![KeyValue::new("text", SECRET)]);
        span.set_status(Status::error(SECRET));
        span.end();
        let spans = kept.0.lock().unwrap();
        let told = format!("{spans:?}");
        assert!(spans.len() == 1 && told.contains("it is [redacted]") && told.contains('7'), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }

    /// Variables as if they were set.
    fn set(variables: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn spans_are_sent_only_where_a_collector_is_named_and_nothing_forbids_it() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        const TRACES: (&str, &str) =
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces");
        for (variables, wanted) in [
            (&[][..], false),
            (&[("OTEL_SERVICE_NAME", "x")], false),
            (&[ENDPOINT], true),
            (&[TRACES], true),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")], false),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")], true),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], false),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")], true),
        ] {
            assert_eq!(is_wanted(set(variables)), wanted, "{variables:?}");
        }
    }

    #[test]
    fn another_protocol_is_named_with_the_way_out() {
        assert!(require_protocol(set(&[])).is_ok());
        assert!(require_protocol(set(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")])).is_ok());
        let refused =
            require_protocol(set(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])).unwrap_err().to_string();
        assert!(
            refused.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\"") && refused.contains("4318"),
            "{refused}"
        );
        // That of traces counts.
        let both = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ];
        assert!(
            require_protocol(|name| both.iter().find(|it| it.0 == name).map(|it| it.1.to_owned())).is_ok()
        );
    }
}
