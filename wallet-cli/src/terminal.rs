//! Talks to the user: results go to stdout, everything else to stderr, and secrets are read without
//! echo.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

#[cfg(unix)]
use crate::hidden;
use crate::keystore::Password;

/// Most bytes of a secret: in a password file, on stdin or typed at the terminal.
const SECRET_BYTES_MAX: usize = 4 << 10;

/// Once a secret is complete, input that arrives within this time is discarded as the rest of a
/// paste.
#[cfg(unix)]
const PASTE: std::time::Duration = std::time::Duration::from_millis(300);

/// Why a text cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TerminalError {
    /// Nobody can be asked, or the answer makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The password file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The result cannot be written to stdout.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
}

/// Writes a result and a line end to stdout.
pub(crate) fn print(text: &str) -> Result<(), TerminalError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(TerminalError::Output)
}

/// Writes a result as JSON and a line end to stdout.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), TerminalError> {
    match serde_json::to_string(value) {
        Ok(text) => print(&text),
        Err(error) => panic!("results are texts, numbers and lists of them: {error}"),
    }
}

/// Writes a line to stderr. A closed stderr is not an error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stderr is a terminal, not a file or a log.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Asks on stderr and reads the answer from stdin. Anything but `y` or `yes` means no.
pub(crate) fn confirm(question: &str) -> Result<bool, TerminalError> {
    if !io::stdin().is_terminal() {
        return Err(TerminalError::Usage(
            "stdin is not a terminal, so nobody can be asked: add --yes to agree".to_owned(),
        ));
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| TerminalError::Usage(format!("no answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A password from a file: its text without one final line end.
pub(crate) fn read_password(path: &Path) -> Result<Password, TerminalError> {
    let input = |error| TerminalError::Input { path: path.to_owned(), error };
    let text = File::open(path).and_then(read_secret).map_err(input)?;
    Ok(Password::new(without_line_end(&text).to_owned()))
}

fn without_line_end(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

/// A password from the terminal.
pub(crate) fn ask_password(prompt: &str) -> Result<Password, TerminalError> {
    let no_terminal = |error| {
        TerminalError::Usage(format!(
            "no terminal to ask for the password ({error}): use --password-file FILE"
        ))
    };
    ask_line(prompt).map(|text| Password::new(text.to_string())).map_err(no_terminal)
}

/// A new password from the terminal, typed twice.
pub(crate) fn ask_new_password() -> Result<Password, TerminalError> {
    let ask = |prompt: &str| {
        let no_terminal = |error| {
            TerminalError::Usage(format!(
                "no terminal to ask for a new password ({error}): use --password-file FILE"
            ))
        };
        ask_line(prompt).map_err(no_terminal)
    };
    let first = ask("New password for the keystore: ")?;
    if first.is_empty() {
        return Err(TerminalError::Usage("the password is empty".to_owned()));
    }
    if *ask("The same again: ")? != *first {
        return Err(TerminalError::Usage("the two passwords differ".to_owned()));
    }
    Ok(Password::new(first.to_string()))
}

/// One line from the terminal, without its end and without echo.
#[cfg(unix)]
fn ask_line(prompt: &str) -> io::Result<Zeroizing<String>> {
    let text = hidden::read_lines(prompt, SECRET_BYTES_MAX, None, |text| text.ends_with('\n'))?;
    match text.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(Zeroizing::new(without_line_end(&text).to_owned())),
    }
}

#[cfg(not(unix))]
fn ask_line(prompt: &str) -> io::Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}

/// A secret to import. At a terminal it is typed or pasted without echo until it is complete or a
/// line is empty. If stdin is not a terminal, all of stdin is the secret.
pub(crate) fn ask_secret(
    prompt: &str,
    is_complete: impl Fn(&str) -> bool,
) -> Result<Zeroizing<String>, TerminalError> {
    let usage = |error| TerminalError::Usage(format!("no secret on stdin: {error}"));
    if io::stdin().is_terminal() {
        #[cfg(unix)]
        return hidden::read_lines(prompt, SECRET_BYTES_MAX, Some(PASTE), |text| {
            text.ends_with("\n\n") || text == "\n" || (text.ends_with('\n') && is_complete(text))
        })
        .map_err(usage);
        #[cfg(not(unix))]
        return ask_line(prompt).map_err(usage);
    }
    read_secret(io::stdin().lock()).map_err(usage)
}

fn read_secret(from: impl Read) -> io::Result<Zeroizing<String>> {
    // The whole capacity is reserved at once, because a string that grows leaves copies of the
    // secret in memory.
    let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_BYTES_MAX));
    from.take(SECRET_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > SECRET_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {SECRET_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

/// A time for people, in UTC to the millisecond.
pub(crate) fn utc(milliseconds: u64) -> String {
    let (days, of_day) = (milliseconds / 86_400_000, milliseconds % 86_400_000);
    // Years begin on 1 March here, so that the leap day comes last. 0000-03-01 is 719,468 days
    // before 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (seconds, thousandths) = (of_day / 1_000, of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{thousandths:03} UTC")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (milliseconds, text) in [
            (0, "1970-01-01 00:00:00.000 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59.999 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00.000 UTC"),
            (1_709_251_200_001, "2024-03-01 00:00:00.001 UTC"),
            (1_798_761_599_000, "2026-12-31 23:59:59.000 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000 UTC"),
        ] {
            assert_eq!(utc(milliseconds), text);
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn a_password_file_ends_at_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        for (content, expected) in
            [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")]
        {
            assert_eq!(without_line_end(content), expected);
            std::fs::write(&path, content).unwrap();
            assert_eq!(*read_secret(File::open(&path).unwrap()).unwrap(), content);
            assert!(read_password(&path).is_ok());
        }
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX + 1)).unwrap();
        assert!(read_password(&path).is_err());
        assert!(read_password(&dir.path().join("absent")).is_err());
    }
}
