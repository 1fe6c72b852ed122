//! Results on stdout.

use std::io::{self, Write};

use serde::Serialize;

/// The result cannot be written, although the command itself was done.
#[derive(Debug, thiserror::Error)]
#[error("the command is done, but the result cannot be written to stdout: {0}")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether the reader of stdout has closed it, as `head` does. That is not a failure of the
    /// command.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes one or more lines to stdout. Unlike `println!`, returns an error if stdout is closed, and
/// does not panic.
pub(crate) fn print(text: &str) -> Result<(), OutputError> {
    let mut text = text.trim_end_matches('\n').to_owned();
    text.push('\n');
    write(text.as_bytes())
}

/// Writes bytes to stdout.
pub(crate) fn write(bytes: &[u8]) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string(value)?)?)
}

/// Lines of `label value` with aligned values.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
    rows.iter().map(|(label, value)| format!("{label:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        assert_eq!(table(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
