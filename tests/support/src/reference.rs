//! The command line of a program as Markdown, made of its own definition.

use std::fmt::Write;

use clap::Command;

/// Everything that `--help` of the program and of each of its commands says.
pub fn markdown(mut program: Command) -> String {
    // Names of variables belong here, what they hold on this machine does not.
    program = program.term_width(100).mut_args(|argument| argument.hide_env_values(true));
    program.build();
    let mut text = String::new();
    section(&mut text, &mut program, 2);
    text
}

fn section(text: &mut String, command: &mut Command, level: usize) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help();
    writeln!(text, "{} `{name}`\n\n```text\n{}\n```\n", "#".repeat(level), trimmed(&help.to_string()))
        .expect("a string takes all text");
    let is_shown = |inner: &&mut Command| inner.get_name() != "help" && !inner.is_hide_set();
    for inner in command.get_subcommands_mut().filter(is_shown) {
        // What every command takes is said once, with the program.
        *inner = std::mem::take(inner).mut_args(|argument| {
            let is_shown =
                !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help";
            argument.hide(!is_shown).hide_env_values(true)
        });
        section(text, inner, level + 1);
    }
}

fn trimmed(help: &str) -> String {
    help.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// What stands between `<!-- begin NAME -->` and `<!-- end NAME -->` of a document, and the document with
/// `text` there instead. A document without these lines gets them at its end.
pub fn section_of<'a>(document: &'a str, name: &str, text: &str) -> (&'a str, String) {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let kept = document.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map(|(kept, _)| kept);
    let replaced =
        match document.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)))
        {
            Some((before, after)) => format!("{before}{begin}{text}{end}{after}"),
            None => format!("{document}{begin}{text}{end}"),
        };
    (kept.unwrap_or_default(), replaced)
}
