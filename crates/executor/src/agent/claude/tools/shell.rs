//! Running a command.

use std::time::Duration;

use serde::Deserialize;

use super::{Said, Tools};
use crate::toolbox::{Interrupted, ShellCommand, ShellEnding, ShellOutput};

/// How long one command may run.
const LONGEST: Duration = Duration::from_secs(120);
/// Longer output is shown as its head and its tail, each of this many characters.
const SHOWN: usize = 5_000;

/// The input of `bash`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Bash {
    command: Option<String>,
    #[serde(default)]
    restart: bool,
}

impl Bash {
    pub(super) async fn run(self, tools: &Tools<'_>) -> Result<Said, Interrupted> {
        let Some(command) = self.command.filter(|command| !command.trim().is_empty()) else {
            return Ok(match self.restart {
                true => Said::text("Every command starts afresh; there is nothing to restart."),
                false => Said::error("`bash`: command is missing"),
            });
        };
        if command.contains('\0') {
            return Ok(Said::error("`bash`: the command holds a zero byte"));
        }
        let bounds = &tools.toolbox.bounds;
        let timeout = LONGEST.min(bounds.remaining());
        let output = bounds.hold((tools.toolbox.shell)(ShellCommand { command, timeout })).await?;
        Ok(told(&output))
    }
}

fn told(output: &ShellOutput) -> Said {
    let text = head_and_tail(&plain(&output.output));
    let (ending, is_error) = match &output.ending {
        ShellEnding::Exited(0) => (String::new(), false),
        ShellEnding::Exited(code) => (format!("[exited with {code}]"), true),
        ShellEnding::Killed(signal) => (format!("[killed by signal {signal}]"), true),
        ShellEnding::TimedOut => ("[stopped: it ran longer than it may]".to_owned(), true),
        ShellEnding::OutputLimit => ("[stopped: it wrote more than it may]".to_owned(), true),
        ShellEnding::NotStarted(reason) => (format!("[did not start: {reason}]"), true),
    };
    let text = [text.trim_end(), &ending].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
    let text = if text.is_empty() { "[no output]".to_owned() } else { text.join("\n") };
    Said { text, is_error }
}

/// Text without terminal control sequences and other control characters; the same output gives the same text.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut characters),
            '\r' if characters.peek() == Some(&'\n') => {}
            // A bare carriage return is a progress bar that overwrites itself.
            '\r' => plain.push('\n'),
            '\n' | '\t' => plain.push(c),
            _ if c.is_control() => {}
            _ => plain.push(c),
        }
    }
    plain
}

/// Passes over what follows an escape character: `[…letter`, `]…BEL`, or one character.
fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            characters.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']') => {
            characters.find(|c| *c == '\u{7}' || *c == '\\');
        }
        _ => {}
    }
}

fn head_and_tail(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * SHOWN {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN).collect();
    let tail: String = text.chars().skip(count - SHOWN).collect();
    format!("{head}\n[… {} characters left out …]\n{tail}", count - 2 * SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_wrote_is_told_plainly() {
        let rows: [(&[u8], ShellEnding, &str, bool); 9] = [
            (b"fine\n", ShellEnding::Exited(0), "fine", false),
            (b"", ShellEnding::Exited(0), "[no output]", false),
            (b"bad\n", ShellEnding::Exited(1), "bad\n[exited with 1]", true),
            (b"", ShellEnding::Killed(9), "[killed by signal 9]", true),
            (b"", ShellEnding::TimedOut, "[stopped: it ran longer than it may]", true),
            (b"\x1b[31mred\x1b[0m \x1b]0;title\x07x\x08", ShellEnding::Exited(0), "red x", false),
            (b"a\r\nb\rc\0", ShellEnding::Exited(0), "a\nb\nc", false),
            (b"\xff\xfe", ShellEnding::Exited(0), "\u{fffd}\u{fffd}", false),
            (b"\x1b[", ShellEnding::Exited(0), "[no output]", false),
        ];
        for (output, ending, text, is_error) in rows {
            let said = told(&ShellOutput { ending, output: output.to_vec() });
            assert_eq!(said, Said { text: text.to_owned(), is_error });
        }
    }

    #[test]
    fn long_output_keeps_its_head_and_its_tail() {
        let text = format!("HEAD{}TAIL", "ü".repeat(20_000));
        let shown = head_and_tail(&text);
        assert!(shown.starts_with("HEAD") && shown.ends_with("TAIL"));
        assert!(shown.contains("10008 characters left out"), "{}", &shown[5000..5100.min(shown.len())].len());
    }
}
