//! Prompts that exist already: the fixed set, and JSONL files.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Error, Source};

/// The fixed set, a prompt a line.
const QUESTIONS: &str = include_str!("questions.txt");

/// One entry of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The conversation, in the form of the API: at least one message, and at least one of the user's is a text.
    pub messages: Vec<Value>,
    /// Output tokens to ask for, if the entry says so.
    pub max_tokens: Option<u32>,
}

impl Entry {
    /// The index of the first message of the user and its text; a request is made unique there.
    pub(super) fn user_text(&self) -> Option<(usize, &str)> {
        let mut messages = self.messages.iter().enumerate();
        messages.find_map(|(i, message)| match message["role"] == "user" {
            true => message["content"].as_str().map(|text| (i, text)),
            false => None,
        })
    }
}

/// The entries of a source; none for synthetic prompts.
///
/// # Errors
/// If the file is not readable or a line of it is no entry; the message names both.
pub fn entries(source: &Source) -> Result<Vec<Entry>, Error> {
    match source {
        Source::Synthetic => Ok(Vec::new()),
        Source::Questions => Ok(QUESTIONS
            .lines()
            .map(|line| entry_of(line.into(), None))
            .collect()),
        Source::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
                path: path.clone(),
                source,
            })?;
            parse(path, &text)
        }
    }
}

fn entry_of(prompt: String, max_tokens: Option<u32>) -> Entry {
    Entry {
        messages: vec![json!({"role": "user", "content": prompt})],
        max_tokens,
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Error> {
    let at = |line: usize, message: String| Error::File {
        file: path.display().to_string(),
        line: line + 1,
        message,
    };
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let entries = lines
        .map(|(i, line)| entry(line).map_err(|message| at(i, message)))
        .collect::<Result<Vec<_>, _>>()?;
    match entries.is_empty() {
        true => Err(at(
            0,
            r#"there is no prompt in this file: write a line such as {"prompt": "..."}"#.into(),
        )),
        false => Ok(entries),
    }
}

fn entry(line: &str) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Line {
        prompt: Option<String>,
        messages: Option<Vec<Value>>,
        max_tokens: Option<u32>,
    }
    let line: Line =
        serde_json::from_str(line).map_err(|error| format!("this line is no JSON object: {error}"))?;
    if line.max_tokens == Some(0) {
        return Err("a max_tokens of 0 asks for nothing: give 1 or more".into());
    }
    let entry = match (line.prompt, line.messages) {
        (Some(prompt), None) => entry_of(prompt, line.max_tokens),
        (None, Some(messages)) => Entry {
            messages,
            max_tokens: line.max_tokens,
        },
        (Some(_), Some(_)) => return Err("this line has a prompt and messages: give one of the two".into()),
        (None, None) => {
            return Err(r#"this line has neither a prompt nor messages: write {"prompt": "..."}"#.into());
        }
    };
    match entry.user_text() {
        Some((_, text)) if !text.trim().is_empty() => Ok(entry),
        _ => Err("there is no text of the user in this line".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_blank_lines_skipped() {
        let text = "{\"prompt\": \"Hi\", \"max_tokens\": 7}\n\n\
                    {\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"Yo\"}]}\n";
        let entries = parse(Path::new("set.jsonl"), text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(
            (entries[0].user_text(), entries[0].max_tokens),
            (Some((0, "Hi")), Some(7))
        );
        assert_eq!(
            (entries[1].user_text(), entries[1].max_tokens),
            (Some((1, "Yo")), None)
        );
    }

    #[test]
    fn bad_lines_are_named() {
        let bad = [
            "{\"prompt\": \"Hi\"}\nHi",
            "{\"prompt\": 5}",
            "{\"text\": \"Hi\"}",
            "{\"prompt\": \"\"}",
            "{\"prompt\": \"Hi\", \"max_tokens\": 0}",
            "{\"prompt\": \"Hi\", \"messages\": []}",
            "{\"messages\": []}",
            "",
        ];
        let errors = bad.map(|text| parse(Path::new("set.jsonl"), text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn the_fixed_set_is_whole() {
        let entries = entries(&Source::Questions).unwrap();
        assert!(entries.len() >= 32);
        assert!(entries.iter().all(|entry| entry.user_text().is_some()));
    }
}
