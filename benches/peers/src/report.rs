//! The page: a summary, a table a workload, the facts about each queue. Never here: measuring.

use crate::child::FLOOR;
use crate::machine::Machine;
use crate::plot;
use crate::queue::{Facts, Peer, Result, Survives};
use crate::queues::SUBJECT;
use crate::runner::{Plan, Verdict};
use crate::workload::Workload;
use std::fmt::Write;
use std::path::Path;

/// All verdicts on one workload.
pub(crate) type Verdicts = Vec<(String, Verdict)>;

/// A line of a table.
struct Row<'a> {
    name: &'a str,
    verdict: &'a Verdict,
}

impl Row<'_> {
    fn figure(&self) -> Option<f64> {
        match self.verdict {
            Verdict::Measured { median, .. } => median.figure,
            _ => None,
        }
    }
}

/// Best first; the floor before all; what has no figure last.
fn sorted(workload: Workload, verdicts: &Verdicts) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = verdicts.iter().map(|(name, verdict)| Row { name, verdict }).collect();
    rows.sort_by(|a, b| {
        let key = |row: &Row<'_>| {
            let figure = row
                .figure()
                .map_or(f64::INFINITY, |figure| if workload.unit().more_is_better() { -figure } else { figure });
            (row.name != FLOOR, figure)
        };
        let ((a_queue, a_figure), (b_queue, b_figure)) = (key(a), key(b));
        a_queue.cmp(&b_queue).then(a_figure.total_cmp(&b_figure))
    });
    rows
}

fn shown_name(workload: Workload, name: &str) -> &str {
    if name == FLOOR { workload.floor().unwrap_or(name) } else { name }
}

fn figure_text(workload: Workload, verdict: &Verdict) -> String {
    let unit = workload.unit();
    match verdict {
        Verdict::Left(_) => "-".to_owned(),
        Verdict::Failed(_) => "failed".to_owned(),
        Verdict::Measured { median, fault, .. } => {
            let p99 = median.p99.map_or_else(String::new, |p99| format!(", {}", unit.show(p99)));
            let mark = if fault.is_some() { " (!)" } else { "" };
            format!("{}{p99}{mark}", unit.show(median.figure.unwrap_or(0.0)))
        }
    }
}

fn remark(workload: Workload, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Left(reason) => reason.clone(),
        Verdict::Failed(error) => error.clone(),
        Verdict::Measured { median, fault, low, high } => {
            let spread =
                (low < high).then(|| format!("{} to {}", workload.unit().show(*low), workload.unit().show(*high)));
            let fault = fault.as_ref().map(|fault| format!("**{fault}**"));
            [fault, median.note.clone(), spread].into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
    }
}

/// The figures alone, for the terminal.
pub(crate) fn summary(results: &[(Workload, Verdicts)]) -> String {
    let mut text = String::new();
    for (workload, verdicts) in results {
        let _ = writeln!(text, "{}", workload.title());
        for row in sorted(*workload, verdicts) {
            let (figure, remark) = (figure_text(*workload, row.verdict), remark(*workload, row.verdict));
            let _ = writeln!(text, "  {:<28} {figure:>22}  {remark}", shown_name(*workload, row.name));
        }
    }
    text
}

/// Writes the page and its plots.
pub(crate) fn write(
    out: &Path,
    machine: &Machine,
    plan: &Plan,
    peers: &[Peer],
    results: &[(Workload, Verdicts)],
) -> Result<()> {
    let facts: Vec<(&str, Facts)> = peers.iter().map(|peer| (peer.name, (peer.facts)())).collect();
    let plots = out.with_file_name("plots");
    std::fs::create_dir_all(&plots)?;
    let mut page = head(machine, plan)?;
    matrix(&mut page, results)?;
    for (workload, verdicts) in results {
        table(&mut page, *workload, verdicts, &facts)?;
        std::fs::write(plots.join(format!("{}.svg", workload.name())), svg(*workload, verdicts))?;
    }
    facts_table(&mut page, &facts)?;
    Ok(std::fs::write(out, page)?)
}

fn head(machine: &Machine, plan: &Plan) -> Result<String> {
    let mut page = String::from("# Benchmarks against other queues\n\n");
    writeln!(page, "{}.\n", machine.line())?;
    writeln!(
        page,
        "Written by `cargo run --release --manifest-path benches/peers/Cargo.toml`: median of {} run(s), each in a process and a \
         directory of its own; {} messages waiting where that matters; payloads of 100 bytes that do not compress. Every run counts \
         and checksums what came out: «(!)» marks a queue that lost, doubled or changed something. «-» means that a queue cannot do \
         it. The floor is what the bare machine does for the same task in the same session, without a queue. «against millpond» is \
         the row's figure divided by millpond's; **bold** where the row is the better one.\n",
        plan.repeats, plan.waiting
    )?;
    writeln!(
        page,
        "Figures of one small machine: the ratios travel better than the figures. The durability of each row stands beside it: rows \
         that promise less are not comparable with rows that promise more.\n"
    )?;
    Ok(page)
}

fn matrix(page: &mut String, results: &[(Workload, Verdicts)]) -> Result<()> {
    let Some((_, first)) = results.first() else { return Ok(()) };
    writeln!(page, "## All in one table\n")?;
    let names: Vec<&str> =
        first.iter().map(|(name, _)| name.as_str()).filter(|name| *name != FLOOR).chain([FLOOR]).collect();
    writeln!(page, "| workload | {} |", names.join(" | "))?;
    writeln!(page, "| --- |{}", " ---: |".repeat(names.len()))?;
    for (workload, verdicts) in results {
        let cell = |name: &&str| {
            let found = verdicts.iter().find(|(row, _)| row == name);
            found.map_or_else(String::new, |(_, verdict)| figure_text(*workload, verdict))
        };
        writeln!(
            page,
            "| [{0}](#{0}) | {1} |",
            workload.name(),
            names.iter().map(cell).collect::<Vec<_>>().join(" | ")
        )?;
    }
    writeln!(page)?;
    Ok(())
}

fn table(page: &mut String, workload: Workload, verdicts: &Verdicts, facts: &[(&str, Facts)]) -> Result<()> {
    let subject =
        verdicts.iter().find(|(name, _)| name == SUBJECT).and_then(|(name, verdict)| Row { name, verdict }.figure());
    writeln!(page, "<a id=\"{}\"></a>\n\n## {}\n\n{}\n", workload.name(), workload.title(), workload.explanation())?;
    writeln!(page, "![{}](plots/{}.svg)\n", workload.title(), workload.name())?;
    let figure = if workload.unit() == crate::workload::Unit::Latency { "p50, p99" } else { "figure" };
    writeln!(
        page,
        "| queue | {figure} | against millpond | survives kill -9 | survives power loss | acknowledges | remark |"
    )?;
    writeln!(page, "| --- | ---: | ---: | --- | --- | --- | --- |")?;
    for row in sorted(workload, verdicts) {
        let facts = facts.iter().find(|(name, _)| *name == row.name).map(|(_, facts)| facts);
        let promises = facts.map_or_else(String::new, |facts| promises(workload, facts));
        let promises = if promises.is_empty() { " |  | ".to_owned() } else { promises };
        writeln!(
            page,
            "| {} | {} | {} | {promises} | {} |",
            shown_name(workload, row.name),
            figure_text(workload, row.verdict),
            ratio(workload, &row, subject),
            remark(workload, row.verdict),
        )?;
    }
    writeln!(page)?;
    Ok(())
}

/// The cells that say what a row's figure is worth.
fn promises(workload: Workload, facts: &Facts) -> String {
    let power = match workload {
        Workload::Durable | Workload::DurableMany => facts.survives_power_loss_when_asked,
        _ => facts.survives_power_loss,
    };
    let acknowledgement = match (workload, facts.acknowledgement_survives_kill9) {
        (Workload::ReceiveOne | Workload::ReceiveBatch | Workload::Live, Survives::Partly(how)) => {
            format!("{}, {how} survives kill -9", facts.acknowledgement)
        }
        (Workload::ReceiveOne | Workload::ReceiveBatch | Workload::Live, survives) => {
            format!("{}, survives kill -9: {survives}", facts.acknowledgement)
        }
        _ => facts.acknowledgement.to_string(),
    };
    format!("{} | {power} | {acknowledgement}", facts.survives_kill9)
}

/// How a row stands to millpond.
fn ratio(workload: Workload, row: &Row<'_>, subject: Option<f64>) -> String {
    let (Some(figure), Some(subject)) = (row.figure(), subject) else { return String::new() };
    let ratio = figure / subject;
    let digits = match ratio {
        _ if ratio < 0.01 => 5,
        _ if ratio < 0.1 => 3,
        _ => 2,
    };
    let is_better = if workload.unit().more_is_better() { ratio > 1.0 } else { ratio < 1.0 };
    // That the bare machine is better is no news.
    if is_better && row.name != FLOOR { format!("**{ratio:.digits$} x**") } else { format!("{ratio:.digits$} x") }
}

fn svg(workload: Workload, verdicts: &Verdicts) -> String {
    let bars: Vec<plot::Bar> = sorted(workload, verdicts)
        .iter()
        .filter_map(|row| {
            let kind = match row.name {
                FLOOR => plot::Kind::Floor,
                SUBJECT => plot::Kind::Subject,
                _ => plot::Kind::Peer,
            };
            let label = figure_text(workload, row.verdict);
            Some(plot::Bar { name: shown_name(workload, row.name).to_owned(), figure: row.figure()?, label, kind })
        })
        .collect();
    let better = if workload.unit().more_is_better() { "more is better" } else { "less is better" };
    plot::bars(&format!("{} ({better}, logarithmic)", workload.title()), &bars)
}

fn facts_table(page: &mut String, facts: &[(&str, Facts)]) -> Result<()> {
    writeln!(page, "## How each queue is used\n")?;
    writeln!(page, "«By default» is how it runs in all rows but the durable ones.\n")?;
    writeln!(
        page,
        "| queue | version | survives kill -9 | survives power loss: by default / durable rows | acknowledges | use and limits |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
    for (name, facts) in facts {
        let Facts { version, survives_kill9, acknowledgement, note, .. } = facts;
        let (default, asked) = (facts.survives_power_loss, facts.survives_power_loss_when_asked);
        writeln!(page, "| {name} | {version} | {survives_kill9} | {default} / {asked} | {acknowledgement} | {note} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::Outcome;

    fn measured(figure: f64) -> Verdict {
        let median = Outcome { figure: Some(figure), ..Outcome::default() };
        Verdict::Measured { median, low: figure, high: figure, fault: None }
    }

    #[test]
    fn rows_are_sorted_by_what_is_better() {
        let verdicts = vec![
            ("slow".to_owned(), measured(1.0)),
            ("none".to_owned(), Verdict::Left("cannot".to_owned())),
            ("fast".to_owned(), measured(9.0)),
            (FLOOR.to_owned(), measured(5.0)),
        ];
        let names = |workload| sorted(workload, &verdicts).iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(Workload::PublishOne), [FLOOR, "fast", "slow", "none"]);
        assert_eq!(names(Workload::OpenClean), [FLOOR, "slow", "fast", "none"]);
    }

    #[test]
    fn a_peer_that_wins_is_bold() {
        let text = |workload, name, figure| ratio(workload, &Row { name, verdict: &measured(figure) }, Some(1.0));
        assert_eq!(text(Workload::PublishOne, "q", 2.0), "**2.00 x**");
        assert_eq!(text(Workload::PublishOne, FLOOR, 2.0), "2.00 x");
        assert_eq!(text(Workload::OpenClean, "q", 2.0), "2.00 x");
        assert_eq!(text(Workload::OpenClean, "q", 0.05), "**0.050 x**");
        assert_eq!(text(Workload::PublishOne, "q", 0.0004), "0.00040 x");
        let left = Verdict::Left(String::new());
        assert_eq!(ratio(Workload::PublishOne, &Row { name: "q", verdict: &left }, Some(1.0)), "");
    }
}
