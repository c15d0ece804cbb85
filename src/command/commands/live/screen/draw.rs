//! The contents as characters.

use graphpatch_core::plain::plain_line;
use graphpatch_protocol::live::PatchState;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Block, List, ListItem, ListState, Paragraph, Sparkline};

use super::contents::{Contents, Entry, Focus, Watched};
use super::keys::HELP;
use super::tree::Line;
use crate::commands::live::asks::statistics;

pub fn draw(contents: &mut Contents, frame: &mut Frame<'_>) {
    let rows = [
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ];
    let [title, middle, bottom] = Layout::vertical(rows).areas(frame.area());
    let head = format!("{}  {} runs", plain_line(&contents.title()), contents.runs);
    frame.render_widget(Paragraph::new(head).style(bold()), title);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(middle);
    let [upper, lower] =
        Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(right);
    draw_tree(contents, frame, left);
    draw_patches(contents, frame, upper);
    draw_watched(contents, frame, lower);
    let said = match &contents.entry {
        Some((Entry::Search, text)) => format!("search: {text}_"),
        Some((Entry::Patch, text)) => format!("patch: {text}_"),
        None if contents.message.is_empty() => HELP.to_owned(),
        None => contents.message.clone(),
    };
    frame.render_widget(Paragraph::new(plain_line(&said).into_owned()), bottom);
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn panel(name: &str, has_focus: bool) -> Block<'_> {
    let style = if has_focus { bold() } else { Style::default() };
    Block::bordered().title(name).border_style(style)
}

/// A list with a line that is marked.
fn draw_list(frame: &mut Frame<'_>, area: Rect, items: Vec<String>, at: usize, block: Block<'_>) {
    let items: Vec<ListItem<'_>> = items.into_iter().map(ListItem::new).collect();
    let list = List::new(items)
        .block(block)
        .highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = ListState::default().with_selected(Some(at));
    frame.render_stateful_widget(list, area, &mut state);
}

fn draw_tree(contents: &Contents, frame: &mut Frame<'_>, area: Rect) {
    let item = |line: &&Line| {
        let sign = match (line.is_scope, contents.tree.is_folded(line)) {
            (false, _) => ' ',
            (true, true) => '+',
            (true, false) => '-',
        };
        let text = format!(
            "{}{sign} {}: {}",
            "  ".repeat(line.depth),
            line.name,
            line.label
        );
        plain_line(&text).into_owned()
    };
    let items = contents.tree.shown().iter().map(item).collect();
    let block = panel("tree", contents.focus == Focus::Tree);
    draw_list(frame, area, items, contents.tree.cursor(), block);
}

fn draw_patches(contents: &Contents, frame: &mut Frame<'_>, area: Rect) {
    let item = |patch: &PatchState| {
        let state = if patch.on { "on " } else { "off" };
        let failed = match patch.failed {
            0 => String::new(),
            count => format!(" failed {count}"),
        };
        let text = format!(
            "{:>3} {state} {}  applied {}{failed}",
            patch.number, patch.text, patch.applied
        );
        plain_line(&text).into_owned()
    };
    let items = contents.patches.iter().map(item).collect();
    let block = panel("patches", contents.focus == Focus::Patches);
    draw_list(frame, area, items, contents.at_patch, block);
}

/// Three lines for each value: its path, its statistics, and how its norm has moved.
fn draw_watched(contents: &Contents, frame: &mut Frame<'_>, area: Rect) {
    let block = panel("watched", false);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let rows = usize::from(inside.height) / 3;
    for (at, watched) in contents.watched.iter().rev().take(rows).enumerate() {
        let top = inside.y + 3 * at as u16;
        let row = |below: u16| Rect {
            y: top + below,
            height: 1,
            ..inside
        };
        let text = watched
            .statistics
            .as_ref()
            .map_or_else(|| "no run has come by yet".to_owned(), statistics);
        let name = plain_line(&watched.path).into_owned();
        frame.render_widget(Text::from(name).style(bold()), row(0));
        frame.render_widget(Text::from(text), row(1));
        draw_norms(watched, frame, row(2));
    }
}

fn draw_norms(watched: &Watched, frame: &mut Frame<'_>, area: Rect) {
    const HEIGHT: f64 = 1000.0;
    let width = usize::from(area.width);
    let skipped = watched.norms.len().saturating_sub(width);
    let last = || watched.norms.iter().skip(skipped).copied();
    let most = last().fold(0.0, f64::max);
    if most > 0.0 {
        let heights: Vec<u64> = last().map(|norm| (norm / most * HEIGHT) as u64).collect();
        frame.render_widget(Sparkline::default().data(&heights).max(HEIGHT as u64), area);
    }
}
