//! Results on stdout.

use std::io::{self, Write};

use serde::Serialize;

/// A result that cannot be written. The command itself was done by then.
#[derive(Debug, thiserror::Error)]
#[error("the command is done, but the result cannot be written to stdout: {0}")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether the reader of our output has gone, as `head` does: nobody's fault.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes one line, or several, to stdout. Unlike `println!`, a closed stdout is an error and no panic.
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

/// Lines of `label  value`, in one column each.
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
