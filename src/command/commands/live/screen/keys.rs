//! What each key does.

use std::ops::ControlFlow;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::contents::{Contents, Entry, Focus};
use crate::voice::Stop;

pub const HELP: &str = "q quit  / search  n N next  Enter fold, switch  p patch  x remove  w watch  r record  Tab tree, patches";
const PAGE: isize = 20;

/// Does what the key says. A break ends the screen.
pub fn press(contents: &mut Contents, key: KeyEvent) -> Result<ControlFlow<()>, Stop> {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Ok(ControlFlow::Break(()));
    }
    if let Some((entry, text)) = contents.entry.take() {
        type_in(contents, entry, text, key.code)?;
        return Ok(ControlFlow::Continue(()));
    }
    contents.message.clear();
    match key.code {
        KeyCode::Char('q') => return Ok(ControlFlow::Break(())),
        KeyCode::Char('/') => contents.entry = Some((Entry::Search, String::new())),
        KeyCode::Char('n') => search(contents, false),
        KeyCode::Char('N') => search(contents, true),
        KeyCode::Char('p') => {
            let path = contents.tree.current().map(|line| line.path.clone());
            contents.entry = Some((Entry::Patch, format!("{}=zero", path.unwrap_or_default())));
        }
        KeyCode::Char('r') => contents.record()?,
        KeyCode::Char('w') => contents.watch()?,
        KeyCode::Char('x') if contents.focus == Focus::Patches => contents.remove()?,
        KeyCode::Tab => {
            contents.focus = match contents.focus {
                Focus::Tree => Focus::Patches,
                Focus::Patches => Focus::Tree,
            }
        }
        KeyCode::Enter | KeyCode::Char(' ') => match contents.focus {
            Focus::Tree => contents.tree.fold(),
            Focus::Patches => contents.switch()?,
        },
        KeyCode::Up | KeyCode::Char('k') => go(contents, -1),
        KeyCode::Down | KeyCode::Char('j') => go(contents, 1),
        KeyCode::PageUp => go(contents, -PAGE),
        KeyCode::PageDown => go(contents, PAGE),
        KeyCode::Home => go(contents, isize::MIN),
        KeyCode::End => go(contents, isize::MAX),
        _ => (),
    }
    Ok(ControlFlow::Continue(()))
}

fn go(contents: &mut Contents, by: isize) {
    match contents.focus {
        Focus::Tree => contents.tree.go(by),
        Focus::Patches => {
            let last = contents.patches.len().saturating_sub(1);
            contents.at_patch = contents.at_patch.saturating_add_signed(by).min(last);
        }
    }
}

fn search(contents: &mut Contents, back: bool) {
    if !contents.tree.search(&contents.query, back) {
        contents.message = format!("no path contains {}", contents.query);
    }
}

fn type_in(
    contents: &mut Contents,
    entry: Entry,
    mut text: String,
    code: KeyCode,
) -> Result<(), Stop> {
    match code {
        KeyCode::Esc => return Ok(()),
        KeyCode::Enter => match entry {
            Entry::Search => {
                contents.query = text;
                search(contents, false);
                return Ok(());
            }
            Entry::Patch => return contents.patch(&text),
        },
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Char(letter) => text.push(letter),
        _ => (),
    }
    contents.entry = Some((entry, text));
    Ok(())
}
