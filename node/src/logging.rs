//! The log goes to stderr. By default libraries log only warnings or errors.

use tracing_subscriber::EnvFilter;

/// The targets of our own messages.
const OURS: [&str; 4] = ["node", "protocol", "ledger", "cairn_node"];
/// Directives for libraries. Of the consensus core only errors are logged. At other levels it logs
/// each step and each lost race between rounds, while the driver logs the events that matter.
const LIBRARIES: &str =
    "warn,arc_malachitebft=error,malachitebft=error,informalsystems_malachitebft=error";

/// Starts the log.
///
/// # Errors
/// The level is not valid, or a log was started before.
pub(crate) fn start(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(
        directives(level).map_err(|reason| anyhow::anyhow!("log level: {reason}"))?,
    )?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(crate::screen::Stderr::new)
        .with_ansi(crate::screen::has_colours())
        // Otherwise a line that cannot be written would be reported by another print to stderr,
        // which would panic.
        .log_internal_errors(false)
        .with_target(false);
    subscriber.try_init().map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))
}

/// Checks that the text is a level or a list of directives.
///
/// # Errors
/// The item that is wrong, and what was expected.
pub(crate) fn check(level: &str) -> Result<(), String> {
    directives(level).map(drop)
}

/// The filter for a list of directives. A bare level applies to our own messages, `target=level` to
/// the target that it names.
fn directives(level: &str) -> Result<String, String> {
    let mut filter = format!("{LIBRARIES},{}", crate::network::LOG_FILTER);
    let bad = |item: &str| {
        format!("{item:?}, expected error, warn, info, debug, trace or off, or target=level")
    };
    for item in level.split(',').map(str::trim) {
        let (target, word) = item.rsplit_once('=').unwrap_or(("", item));
        if !["error", "warn", "info", "debug", "trace", "off"].contains(&word)
            || item.starts_with('=')
        {
            return Err(bad(item));
        }
        if target.is_empty() {
            filter.extend(OURS.map(|target| format!(",{target}={word}")));
        } else {
            filter.push_str(&format!(",{item}"));
        }
    }
    EnvFilter::try_new(&filter).map_err(|_| bad(level))?;
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ours_and_targets_are_free() {
        for (level, part) in [
            ("info", Some(",node=info,protocol=info,ledger=info,cairn_node=info")),
            ("warn, node::network=trace", Some("cairn_node=warn,node::network=trace")),
            ("libp2p_gossipsub=debug", Some(",libp2p_gossipsub=debug")),
            ("", None),
            ("loud", None),
            ("node=loud", None),
            ("=info", None),
            ("info,,warn", None),
        ] {
            let filter = directives(level);
            assert_eq!(filter.is_ok(), part.is_some(), "{level}");
            assert!(
                part.is_none_or(|part| filter.is_ok_and(|filter| filter.ends_with(part))),
                "{level}"
            );
        }
    }

    /// libp2p's identify logs a warning for messages that a peer may send as often as it likes.
    #[test]
    fn strangers_write_no_warnings_of_identify() {
        for (level, warns) in [("info", false), ("info,libp2p_identify=warn", true)] {
            let Ok(filter) = directives(level) else { panic!("{level} is a level") };
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter).finish();
            tracing::subscriber::with_default(subscriber, || {
                let does =
                    tracing::enabled!(target: "libp2p_identify::handler", tracing::Level::WARN);
                assert_eq!(does, warns, "{level}");
                assert!(
                    tracing::enabled!(target: "libp2p_identify::handler", tracing::Level::ERROR),
                    "{level}"
                );
            });
        }
    }
}
