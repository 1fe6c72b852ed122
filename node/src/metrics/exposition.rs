//! Metrics as text: the classic format of Prometheus, or OpenMetrics for a client that prefers it.

use std::fmt::{self, Write};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, version 0.0.4, which every tool reads.
    Classic,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for (RFC 9110, section 12.5.1): OpenMetrics if the
    /// header names it and prefers no other, else the classic one.
    pub(crate) fn accepted(accept: &str) -> Self {
        let (mut classic, mut open) = (None, None);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            // In thousandths, because a quality has at most three decimal digits.
            let quality = |text: &str| {
                text.parse::<f64>().map_or(0, |quality| (quality.clamp(0.0, 1.0) * 1_000.0) as u32)
            };
            let quality =
                parts.find_map(|part| part.strip_prefix("q=").map(quality)).unwrap_or(1_000);
            let best = match &*kind {
                "application/openmetrics-text" => &mut open,
                "text/plain" | "text/*" | "*/*" => &mut classic,
                _ => continue,
            };
            *best = Some(quality.max(best.unwrap_or(0)));
        }
        match open {
            Some(open) if open > 0 && open >= classic.unwrap_or(0) => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Writes all metrics of a registry as text.
    pub(crate) fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, registry)?;
        match self {
            Self::Classic => classic(&text),
            Self::OpenMetrics => Ok(text),
        }
    }
}

/// Converts OpenMetrics, as our library writes it, to the classic format. In the classic format the
/// `HELP` and `TYPE` lines name a counter with `_total` and an info with `_info`. It does not mark
/// units and the end of the text, and it has fewer types.
fn classic(open: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            writeln!(text, "{line}")?;
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            // The help is written together with the type, which decides the suffix of the name.
            (Some("HELP"), Some(_), words) => help = words,
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "gauge" | "histogram" | "summary" => ("", kind),
                    _ => ("", "untyped"),
                };
                if let Some(help) = help.take() {
                    writeln!(text, "# HELP {name}{suffix} {help}")?;
                }
                writeln!(text, "# TYPE {name}{suffix} {kind}")?;
            }
            _ => {}
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn classic_text_of_each_kind() {
        let mut registry = Registry::default();
        let counter = Family::<[(&'static str, &'static str); 1], Counter>::default();
        counter.get_or_create(&[("kind", "a b")]).inc();
        registry.register_with_unit("spent", "Time spent", Unit::Seconds, counter);
        registry.register("height", "Height", Gauge::<i64>::default());
        registry.register("build", "Build", Info::new(vec![("version", "1")]));
        let histogram = Histogram::new([0.5]);
        histogram.observe(0.1);
        registry.register_with_unit("wait", "Wait", Unit::Seconds, histogram);
        let expected = [
            "# HELP spent_seconds_total Time spent.",
            "# TYPE spent_seconds_total counter",
            r#"spent_seconds_total{kind="a b"} 1"#,
            "# HELP height Height.",
            "# TYPE height gauge",
            "height 0",
            "# HELP build_info Build.",
            "# TYPE build_info gauge",
            r#"build_info{version="1"} 1"#,
            "# HELP wait_seconds Wait.",
            "# TYPE wait_seconds histogram",
            "wait_seconds_sum 0.1",
            "wait_seconds_count 1",
            r#"wait_seconds_bucket{le="0.5"} 1"#,
            r#"wait_seconds_bucket{le="+Inf"} 1"#,
        ];
        assert_eq!(Format::Classic.write(&registry).unwrap().lines().collect::<Vec<_>>(), expected);
        assert!(Format::OpenMetrics.write(&registry).unwrap().ends_with("# EOF\n"));
    }

    #[test]
    fn the_format_is_negotiated() {
        for (accept, expected) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain;version=0.0.4, application/openmetrics-text; q=0.9", Format::Classic),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("application/openmetrics-text;q=x", Format::Classic),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}
