//! `meshscrape completions` and `meshscrape man`: what is made from the definition of the command line itself, so that it can
//! never say something else than `--help`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};

use super::Arguments;

/// The arguments of completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshscrape completions bash > ~/.local/share/bash-completion/completions/meshscrape
  meshscrape completions zsh > ~/.zfunc/_meshscrape
  meshscrape completions fish > ~/.config/fish/completions/meshscrape.fish

The folders must be there (mkdir -p). For zsh write `fpath+=~/.zfunc` before compinit in ~/.zshrc; a new shell completes.")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The arguments of manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshscrape man | man -l -
  mkdir -p ~/.local/share/man/man1
  meshscrape man --dir ~/.local/share/man/man1")]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory; without it, the first page goes to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the script that completes our command line.
pub(super) fn completions(args: &CompletionsArgs) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "meshscrape", &mut script);
    io::stdout().write_all(&script)
}

/// Writes the manual pages; returns the exit code.
pub(super) fn man(args: &ManArgs) -> u8 {
    let mut command = without_help(Arguments::command());
    command.build();
    let Some(dir) = &args.dir else {
        return super::written(page(&command).and_then(|page| io::stdout().write_all(&page)).map(|()| 0));
    };
    match write_pages(&command, dir) {
        Ok(count) => {
            say!("{count} pages written to {}", dir.display());
            0
        }
        Err(error) => {
            say!("meshscrape: cannot write manual pages to {}: {error}", dir.display());
            1
        }
    }
}

/// The command and those below it without `help`, which has no page.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// A page for this command and for each below it; how many these are.
fn write_pages(command: &clap::Command, dir: &Path) -> io::Result<usize> {
    std::fs::write(dir.join(format!("{}.1", name(command))), page(command)?)?;
    let mut count = 1;
    for below in command.get_subcommands() {
        count += write_pages(below, dir)?;
    }
    Ok(count)
}

/// The name of a command's page: meshscrape-check-config.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// The page of a command that is built.
fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone())
        .source(concat!("meshscrape ", env!("CARGO_PKG_VERSION")))
        .manual("meshscrape");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    after_help(&mut rest, command);
    see_also(&mut rest, command);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The paragraphs behind the options, each below the heading that it has in a manual: what begins with a word and a colon has one
/// of its own.
fn after_help(roff: &mut Roff, command: &clap::Command) {
    const HEADINGS: [(&str, &str); 4] = [
        ("Exit codes:", "EXIT STATUS"),
        ("Signals:", "SIGNALS"),
        ("Environment:", "ENVIRONMENT"),
        ("Examples:", "EXAMPLES"),
    ];
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return };
    let mut under = "";
    for paragraph in text.split("\n\n") {
        let own = HEADINGS.into_iter().find_map(|(word, heading)| Some((heading, paragraph.strip_prefix(word)?)));
        let (heading, paragraph) = own.unwrap_or(("NOTES", paragraph));
        match heading == under {
            true => roff.control("PP", []),
            false => roff.control("SH", [heading]),
        };
        under = heading;
        if heading == "EXAMPLES" {
            // Lines as they stand.
            roff.control("nf", []);
            roff.text([roman(paragraph.trim_start_matches('\n'))]);
            roff.control("fi", []);
        } else {
            roff.text([roman(paragraph.trim_start())]);
        }
    }
}

/// The pages around this one: that of the program, and those below.
fn see_also(roff: &mut Roff, command: &clap::Command) {
    let program = Some("meshscrape").filter(|program| *program != name(command));
    let pages: Vec<_> =
        program.into_iter().chain(command.get_subcommands().map(name)).map(|page| format!("{page}(1)")).collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
}
