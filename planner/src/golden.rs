//! Golden scripts: `testscripts/<topic>/*.txt` hold cases of input, `---`, expected output, apart by empty lines.
//!
//! `BLESS=1` writes the output that the code gives now; the difference is then reviewed as code is. Lines that
//! begin with `#` outside of a case are comments. Paths are relative: cargo runs tests in the folder of their crate, and one
//! target directory may serve several checkouts.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::PlanError;

/// Runs all scripts of a topic. `script` makes the function that answers the inputs of one file, in order.
pub(crate) fn run<Answer: FnMut(&str) -> String>(topic: &str, mut script: impl FnMut() -> Answer) {
    let folder = Path::new("testscripts").join(topic);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no scripts", folder.display());
    for file in files {
        let expected = fs::read_to_string(&file).expect("the script can be read");
        let mut answer = script();
        let actual = answered(&expected, &mut answer);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, actual).expect("the script can be written");
        } else {
            compare(&file.display().to_string(), &expected, &actual);
        }
    }
}

/// The script with fresh outputs.
fn answered(script: &str, answer: &mut impl FnMut(&str) -> String) -> String {
    let mut blocks = Vec::new();
    for block in script
        .split("\n\n")
        .map(|block| block.trim_matches('\n'))
        .filter(|block| !block.is_empty())
    {
        let is_comment = block.lines().all(|line| line.starts_with('#'));
        if is_comment {
            blocks.push(block.to_owned());
            continue;
        }
        let input = block.split("\n---").next().unwrap_or(block);
        blocks.push(format!("{input}\n---\n{}", answer(input).trim_end()));
    }
    blocks.join("\n\n") + "\n"
}

fn compare(file: &str, expected: &str, actual: &str) {
    let differing = expected
        .lines()
        .zip(actual.lines())
        .enumerate()
        .find(|(_, (one, other))| one != other);
    if let Some((line, (expected, actual))) = differing {
        panic!(
            "{file}:{}\n expected: {expected}\n   actual: {actual}\nBLESS=1 accepts the change",
            line + 1
        );
    }
    assert_eq!(
        expected.lines().count(),
        actual.lines().count(),
        "{file}: lines are missing or too many"
    );
}

/// An error as scripts show it.
pub(crate) fn shown(error: &PlanError) -> String {
    let mut text = format!("{:?}", error.kind);
    if let Some(position) = error.position {
        write!(text, " at {position}").expect("writing to a string cannot fail");
    }
    write!(text, ": {}", error.message).expect("writing to a string cannot fail");
    if let Some(hint) = &error.hint {
        write!(text, "\n  hint: {hint}").expect("writing to a string cannot fail");
    }
    text
}
