//! docs/path-rules.md shows the built-in lists as they are. `UPDATE=1 cargo test` writes them anew.

use std::fs;
use std::path::Path;

use leviathan_model::rules::built_in_rules;

const END: &str = "<!-- end -->";

#[test]
fn the_page_shows_the_built_in_lists() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/path-rules.md");
    let page = fs::read_to_string(&file).unwrap();
    let begin = page.find("<!-- built-in lists").expect("the mark where the lists begin");
    let lists_begin = begin + page[begin..].find('\n').expect("a line of its own") + 1;
    let lists_end = page.find(END).expect("the mark where the lists end");
    let generated = format!("{}{}{}", &page[..lists_begin], lists(), &page[lists_end..]);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &generated).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), generated, "run the tests with UPDATE=1");
}

fn lists() -> String {
    let section = |(title, patterns): (&str, &[&str])| {
        let patterns: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
        format!("\n### {title}\n\n{}\n\n", patterns.join(", "))
    };
    built_in_rules().into_iter().map(section).collect()
}
