//! `meshscrape completions` and `meshscrape man`: what is made from the definition of the command line itself, so that it can
//! never say something else than `--help`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::Arguments;

/// The arguments of completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshscrape completions bash > /etc/bash_completion.d/meshscrape
  meshscrape completions zsh > \"${fpath[1]}/_meshscrape\"
  meshscrape completions fish > ~/.config/fish/completions/meshscrape.fish")]
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
  meshscrape man --dir /usr/local/share/man/man1")]
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
    let mut command = Arguments::command();
    command.build();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let made = clap_mangen::Man::new(command).render(&mut page).and_then(|()| io::stdout().write_all(&page));
        return super::written(made.map(|()| 0));
    };
    match write_pages(&command, dir) {
        Ok(count) => {
            eprintln!("{count} pages written to {}", dir.display());
            0
        }
        Err(error) => {
            eprintln!("meshscrape: cannot write manual pages to {}: {error}", dir.display());
            1
        }
    }
}

/// A page for this command and for each below it; how many these are.
fn write_pages(command: &clap::Command, dir: &Path) -> io::Result<usize> {
    // Its name once it is built is that of the page: meshscrape-check-config.
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let mut count = 1;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        count += write_pages(below, dir)?;
    }
    Ok(count)
}
