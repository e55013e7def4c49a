//! Every message and help text of the programs, in one file that can be read in one go: `tests/snapshots/messages.txt`.
//!
//! Messages are the string literals of the sources that read like text: errors, hints, reasons, log lines. Help is what the built
//! programs print. `UPDATE_GOLDEN=1 cargo test --workspace --test messages` writes the file anew; then read what changed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Text for developers and for other programs, which no user reads.
const LEFT_OUT: [&str; 4] =
    ["gpuctl-control/src/contract", "gpuctl-sim/src/wire", "/tests.rs", "/tests/"];

#[test]
fn messages_and_help_are_those_of_the_snapshot() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository");
    let mut found = String::new();
    for file in sources(root) {
        let texts = messages(&std::fs::read_to_string(&file).expect("a source file"));
        if !texts.is_empty() {
            let name = file.strip_prefix(root).expect("below the root").display();
            let _ = writeln!(found, "# {name}\n{}\n", texts.join("\n"));
        }
    }
    let gpuctl = PathBuf::from(env!("CARGO_BIN_EXE_gpuctl"));
    let worker = gpuctl.with_file_name("gpu-worker");
    for program in [&gpuctl, &worker] {
        help(program, &[], &mut found);
    }
    compare(&root.join("crates/gpuctl/tests/snapshots/messages.txt"), &found);
}

fn compare(snapshot: &Path, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(snapshot, found).expect("the snapshot is written");
        return;
    }
    let kept = std::fs::read_to_string(snapshot).unwrap_or_default();
    let changed: Vec<&str> = found.lines().filter(|line| !kept.contains(line)).collect();
    assert!(
        kept == found,
        "messages changed: run `UPDATE_GOLDEN=1 cargo test --workspace --test messages` and read the difference; new lines:\n{}",
        changed.join("\n")
    );
}

/// The Rust files of the programs, in the order of their paths.
fn sources(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("lambda")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("its entries").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|suffix| suffix == "rs") {
                files.push(path);
            }
        }
    }
    files.retain(|file| {
        let name = file.to_str().expect("an UTF-8 path");
        name.contains("/src/") && !LEFT_OUT.iter().any(|part| name.contains(part))
    });
    files.sort();
    files
}

fn messages(source: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let tokens: TokenStream = source.parse().expect("Rust");
    collect(tokens, &mut texts);
    texts
}

fn collect(tokens: TokenStream, texts: &mut Vec<String>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut before = String::new();
    let mut skips_item = false;
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Punct(mark) if mark.as_char() == '#' => {
                tokens.next_if(|next| next.to_string() == "!");
                if let Some(TokenTree::Group(attribute)) =
                    tokens.next_if(|next| matches!(next, TokenTree::Group(_)))
                {
                    skips_item |= is_test(&attribute);
                    if attribute.stream().to_string().starts_with("error") {
                        collect(attribute.stream(), texts);
                    }
                }
            }
            // A test module ends with its braces; a test's `mod name;` and `use` with the semicolon.
            TokenTree::Group(group) if skips_item => {
                skips_item = group.delimiter() != Delimiter::Brace;
            }
            TokenTree::Punct(mark) if skips_item => skips_item = mark.as_char() != ';',
            TokenTree::Group(group) if before != "expect" => collect(group.stream(), texts),
            TokenTree::Literal(literal) => texts.extend(text(&literal.to_string())),
            _ => {}
        }
        before = token.to_string();
    }
}

fn is_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text == "test"
}

/// The literal's text if people read it: words, and no SQL.
fn text(literal: &str) -> Option<String> {
    const SQL: [&str; 10] = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "PRAGMA", "BEGIN", "SET", "ALTER",
        "WHERE",
    ];
    let start = literal.find('"')?;
    let inner = literal[start..].trim_end_matches('#').strip_prefix('"')?.strip_suffix('"')?;
    // A literal that goes on in the next line is one text.
    let mut lines = inner.split("\\\n");
    let mut joined = lines.next()?.to_owned();
    lines.for_each(|line| joined.push_str(line.trim_start()));
    let text = joined.replace('\n', "\\n").trim().to_owned();
    let mut words = text.split(' ').filter(|word| word.chars().any(char::is_alphabetic));
    let first = words.next()?;
    (words.next().is_some() && !SQL.contains(&first)).then(|| format!("  {text}"))
}

/// The help of a command and of all below it.
fn help(program: &Path, command: &[String], out: &mut String) {
    let name = program.file_name().and_then(|name| name.to_str()).expect("a name");
    let shown = Command::new(program)
        .args(command)
        .arg("--help")
        .env("COLUMNS", "120")
        .output()
        .expect("the programs are built: cargo build --workspace");
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    let words = [&[name.to_owned()], command].concat().join(" ");
    let _ = writeln!(out, "# {words} --help");
    for line in text.lines() {
        let _ = writeln!(out, "{}", format!("  {line}").trim_end());
    }
    out.push('\n');
    for below in commands(&text) {
        help(program, &[command, &[below]].concat(), out);
    }
}

/// The names under `Commands:`, or under the headings of groups.
fn commands(help: &str) -> Vec<String> {
    let lists_commands = |part: &&str| {
        let heading = part.lines().next().unwrap_or_default();
        heading.ends_with(':')
            && !["Arguments:", "Options:", "Options of every command:"].contains(&heading)
    };
    let lines = help.split("\n\n").filter(lists_commands).flat_map(|part| part.lines().skip(1));
    let names = lines.filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}
