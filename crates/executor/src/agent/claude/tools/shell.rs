//! Running a command.

use std::time::Duration;

use serde::Deserialize;

use super::{Said, Tools};
use crate::agent::FailureCause;
use crate::contain::{self, End};
use crate::toolbox::ShellOutput;

/// How long one command may run.
const LONGEST: Duration = Duration::from_secs(120);

/// The input of `bash`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Bash {
    command: Option<String>,
    #[serde(default)]
    restart: bool,
}

impl Bash {
    pub(super) async fn run(self, tools: &Tools<'_>) -> Result<Said, FailureCause> {
        let Some(command) = self.command.filter(|command| !command.trim().is_empty()) else {
            return Ok(match self.restart {
                true => Said::text("Every command starts afresh; there is nothing to restart."),
                false => Said::error("`bash`: command is missing"),
            });
        };
        if command.contains('\0') {
            return Ok(Said::error("`bash`: the command holds a zero byte"));
        }
        let toolbox = tools.toolbox;
        let timeout = LONGEST.min(toolbox.bounds.remaining());
        let output = toolbox.shell.run(&toolbox.tree, command, timeout, &toolbox.bounds).await;
        // A command that was ended because the attempt must stop has no result.
        toolbox.bounds.check()?;
        output.map(|output| told(&output)).map_err(|error| match error.downcast::<contain::Error>() {
            Ok(error) => error.into(),
            Err(error) => FailureCause::Internal(error),
        })
    }
}

fn told(output: &ShellOutput) -> Said {
    let text = match output.output.left_out {
        0 => plain(&format!("{}{}", output.output.head, output.output.tail)),
        bytes => {
            let (head, tail) = (plain(&output.output.head), plain(&output.output.tail));
            format!("{head}\n[… {bytes} bytes left out …]\n{tail}")
        }
    };
    let (ending, is_error) = match &output.end {
        End::Exited { code: 0 } => (String::new(), false),
        End::Exited { code } => (format!("[exited with {code}]"), true),
        End::Signalled { signal } => (format!("[ended by signal {signal}]"), true),
        End::TimedOut => ("[ended: it ran longer than it may]".to_owned(), true),
        End::OutputLimit => ("[ended: it wrote more than it may]".to_owned(), true),
        End::DiskLimit => ("[ended: it took more of the disk than it may]".to_owned(), true),
        End::ProcessLimit => ("[ended: it had more processes than it may]".to_owned(), true),
        End::Cancelled => ("[ended from outside]".to_owned(), true),
        End::NotStarted { problem } => (format!("[did not start: {problem}]"), true),
    };
    let parts: Vec<_> = [text.trim_end(), &ending].into_iter().filter(|part| !part.is_empty()).collect();
    let text = if parts.is_empty() { "[no output]".to_owned() } else { parts.join("\n") };
    Said { text, is_error }
}

/// Text without terminal control sequences and other control characters; the same output gives the same text.
fn plain(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contain::Excerpt;

    #[test]
    fn what_a_command_wrote_is_told_plainly() {
        let exited = |code| End::Exited { code };
        let rows = [
            ("fine\n", exited(0), "fine", false),
            ("", exited(0), "[no output]", false),
            ("bad\n", exited(1), "bad\n[exited with 1]", true),
            ("", End::Signalled { signal: 9 }, "[ended by signal 9]", true),
            ("", End::TimedOut, "[ended: it ran longer than it may]", true),
            ("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x08", exited(0), "red x", false),
            ("a\r\nb\rc\0", exited(0), "a\nb\nc", false),
            ("\x1b[", exited(0), "[no output]", false),
        ];
        for (written, end, text, is_error) in rows {
            let output = Excerpt { head: written.to_owned(), left_out: 0, tail: String::new() };
            assert_eq!(told(&ShellOutput { end, output }), Said { text: text.to_owned(), is_error });
        }
        let output = Excerpt { head: "HEAD".to_owned(), left_out: 7, tail: "TAIL".to_owned() };
        let said = told(&ShellOutput { end: exited(0), output });
        assert_eq!(said.text, "HEAD\n[… 7 bytes left out …]\nTAIL");
    }
}
