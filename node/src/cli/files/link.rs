//! Where a command takes a link from: its arguments, a file, or stdin.

use std::fs::File;
use std::io::{self, BufRead, Read};

use anyhow::{Context, bail};
use ledger::file::FileId;
use ledger::link::{LINK_BYTES_MAX, Link, PREFIX};

use crate::screen::say;

/// Most bytes of a file or of stdin that are read: a link, and spaces around it.
const BYTES_MAX: u64 = 2 * LINK_BYTES_MAX as u64;

/// Reads a link from an argument: the link itself, `-` for stdin, or the path of a file that holds
/// it. Warns if a key is in the arguments, which other users of the machine can see.
pub(super) fn read(argument: &str) -> anyhow::Result<Link> {
    if argument.starts_with(PREFIX) {
        let link: Link = argument.parse()?;
        if link.key.is_some() {
            say("the key of this link is in the arguments, where other users of this machine and \
                 the history of the shell see it; with - the link is read from stdin");
        }
        return Ok(link);
    }
    if argument == "-" {
        return first_line(io::stdin().lock()).context("stdin");
    }
    if argument.contains('#') && File::open(argument).is_err() {
        // Perhaps a link with a mistake, so its key must not be shown.
        bail!("the argument is neither a link nor a file; a link begins with {PREFIX}");
    }
    let file =
        File::open(argument).with_context(|| format!("{argument} is neither a link nor a file"))?;
    first_line(file).with_context(|| argument.to_owned())
}

fn first_line(from: impl Read) -> anyhow::Result<Link> {
    let mut line = String::new();
    io::BufReader::new(from.take(BYTES_MAX)).read_line(&mut line)?;
    Ok(line.trim().parse()?)
}

/// The id in an argument: that of a link, or the id itself.
pub(in crate::cli) fn id_of(argument: &str) -> anyhow::Result<FileId> {
    if let Ok(id) = argument.parse() {
        return Ok(id);
    }
    Ok(read(argument)?.id)
}

/// A range of bytes as `--range` reads it: `FIRST-LAST`, or `FIRST-` up to the end.
pub(super) fn range(text: &str) -> Result<(u64, u64), String> {
    let expected = || format!("{text:?} is not a range, expected FIRST-LAST in bytes, or FIRST-");
    let (first, last) = text.split_once('-').ok_or_else(expected)?;
    let first = first.parse().map_err(|_| expected())?;
    let last = match last {
        "" => u64::MAX,
        last => last.parse().map_err(|_| expected())?,
    };
    if first > last {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok((first, last))
}

/// The file's name in a path. Refuses a path without one, such as `..`.
pub(super) fn check_name(path: &std::path::Path) -> anyhow::Result<String> {
    match path.file_name() {
        Some(name) => Ok(name.to_string_lossy().into_owned()),
        None => bail!("{} names no file", path.display()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_come_from_arguments_and_files() {
        let public = format!("cairn:{}", "0a".repeat(32));
        let private = format!("{public}#{}", "0b".repeat(32));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        for (text, link) in [
            (public.clone(), &public),
            (format!("  {private}\r\n"), &private),
            (format!("{private}\nmore"), &private),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(path.to_str().unwrap()).unwrap().to_string(), *link);
            assert_eq!(read(link).unwrap().to_string(), *link);
            assert_eq!(id_of(link).unwrap().to_string(), "0a".repeat(32));
        }
        assert_eq!(id_of(&"0a".repeat(32)).unwrap().to_string(), "0a".repeat(32));
        std::fs::write(&path, vec![b' '; 5_000]).unwrap();
        assert!(read(path.to_str().unwrap()).is_err());
        // A link with a mistake is not shown, since its key would be, too.
        for wrong in [private.replace("cairn", "Cairn"), format!(" {private}")] {
            let error = format!("{:#}", read(&wrong).unwrap_err());
            assert!(error.contains("begins with cairn:") && !error.contains("0b0b"), "{error}");
        }
        let error = read("no-such-file").unwrap_err();
        assert!(format!("{error:#}").contains("is neither a link nor a file"), "{error:#}");
    }

    #[test]
    fn ranges_have_both_ends() {
        for (text, expected) in [
            ("0-0", Some((0, 0))),
            ("5-9", Some((5, 9))),
            ("7-", Some((7, u64::MAX))),
            ("9-5", None),
            ("-5", None),
            ("5", None),
            ("", None),
            ("1-2-3", None),
        ] {
            assert_eq!(range(text).ok(), expected, "{text}");
        }
    }
}
