//! A line of a script as words, quoted as in a shell.

/// Splits a line into words. What follows a `#` at the start of a word is a comment.
///
/// # Errors
/// A quote that does not end, or a backslash at the end of the line.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '#' if word.is_none() => break,
            c if c.is_whitespace() => words.extend(word.take()),
            // Between single quotes no character has a special meaning.
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("expected a closing '".to_owned()),
                    }
                }
            }
            '"' => double_quoted(word.get_or_insert_default(), &mut rest)?,
            '\\' => match rest.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("expected a character after \\".to_owned()),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Reads up to the closing double quote. A backslash before `"`, `\`, `$` or a backtick takes away
/// the special meaning of that character. Any other backslash is kept.
fn double_quoted(word: &mut String, rest: &mut std::str::Chars<'_>) -> Result<(), String> {
    loop {
        match rest.next() {
            Some('"') => return Ok(()),
            Some('\\') => match rest.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            Some(c) => word.push(c),
            None => break,
        }
    }
    Err("expected a closing \"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # only a comment", &[]),
            ("heal", &["heal"]),
            ("\tload  50/s\t# half a core", &["load", "50/s"]),
            ("faucet crn1abc \"10 CRN\"", &["faucet", "crn1abc", "10 CRN"]),
            ("faucet crn1abc '10 CRN'", &["faucet", "crn1abc", "10 CRN"]),
            ("a#b # c", &["a#b"]),
            ("'#' \"#\"", &["#", "#"]),
            (r#"a\ b "c\"d" 'e\f' "g\h""#, &["a b", "c\"d", r"e\f", r"g\h"]),
            ("x'y'\"z\" '' \"\"", &["xyz", "", ""]),
            ("heal\r", &["heal"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(words(line), Ok(expected), "{line:?}");
        }
        for (line, expected) in [
            ("'a", "closing '"),
            ("\"a", "closing \""),
            ("a \"b\\", "closing \""),
            ("a\\", "character after \\"),
        ] {
            assert!(words(line).is_err_and(|error| error.contains(expected)), "{line:?}");
        }
    }
}
