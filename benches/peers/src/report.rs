//! The page: a summary, a table a workload, the facts about each queue. Never here: measuring.

use crate::child::FLOOR;
use crate::machine::Machine;
use crate::plot;
use crate::queue::{Facts, Peer, Result, Survives};
use crate::queues::SUBJECT;
use crate::runner::{Plan, Verdict};
use crate::workload::{Unit, Workload};
use crate::wrap::wrapped;
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

/// What the page says about the whole session.
pub(crate) struct Session<'a> {
    /// Where it ran.
    pub(crate) machine: &'a Machine,
    /// How.
    pub(crate) plan: &'a Plan,
    /// The arguments that asked for it.
    pub(crate) arguments: &'a str,
    /// What was measured.
    pub(crate) peers: &'a [Peer],
    /// What could not be.
    pub(crate) absent: &'a [Peer],
}

/// Writes the page and its plots, with the workloads that were asked for and did not come to their turn yet.
pub(crate) fn write(
    out: &Path,
    session: &Session<'_>,
    results: &[(Workload, Verdicts)],
    missing: &[Workload],
) -> Result<()> {
    let facts: Vec<(&str, Facts)> = session.peers.iter().map(|peer| (peer.name, (peer.facts)())).collect();
    let plots = out.with_file_name("plots");
    std::fs::create_dir_all(&plots)?;
    let mut page = head(session)?;
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|workload| workload.name()).collect();
        writeln!(page, "**This run did not come to its end.** Missing: {}.\n", names.join(", "))?;
    }
    matrix(&mut page, results)?;
    for (workload, verdicts) in results {
        table(&mut page, *workload, verdicts, &facts)?;
        std::fs::write(plots.join(format!("{}.svg", workload.name())), svg(*workload, verdicts))?;
    }
    facts_table(&mut page, &facts)?;
    Ok(std::fs::write(out, wrapped(&page))?)
}

fn head(session: &Session<'_>) -> Result<String> {
    let Session { machine, plan, arguments, absent, .. } = session;
    let mut page = String::from("# Comparison with other queues\n\n");
    writeln!(
        page,
        "The same work for millpond, for its peers and for the bare machine. Written by `cargo run --release --manifest-path \
         benches/peers/Cargo.toml{arguments}`; never edited by hand.\n"
    )?;
    writeln!(page, "{}.\n", machine.line())?;
    if machine.is_busy() {
        writeln!(
            page,
            "**Unless that load was of benchmarks that ran just before, the machine was busy, and these figures say little.**\n"
        )?;
    }
    writeln!(
        page,
        "Figures are medians of {} run(s), each in a process and a directory of its own; the queues take turns, so that a disturbance hits them \
         alike. Payloads are 100 bytes that do not compress; a run ends after {:.1} s or {} messages; {} messages wait where openings and bytes are \
         measured. Every run counts and checksums what came out: (!) marks a queue that lost, doubled or changed something. A dash means \
         that a queue cannot do it, or not fast enough. The floor is what the bare machine does for the same task in the same session, \
         without a queue. Before publishing and receiving that need survive no power loss, and before openings, {} GiB of memory are touched and freed: \
         docs/internals/performance.md says why. \"Against millpond\" is the row's figure divided by millpond's, in **bold** where the row is the better one; below \
         each table stands why.\n",
        plan.repeats,
        plan.scale.limit.as_secs_f64(),
        plan.scale.messages,
        plan.waiting,
        plan.warm_bytes >> 30
    )?;
    writeln!(
        page,
        "Figures of one small machine: the ratios travel better than the figures. What a row promises stands beside it: rows that promise \
         less are not comparable with rows that promise more.\n"
    )?;
    if !absent.is_empty() {
        let names: Vec<&str> = absent.iter().map(|peer| peer.name).collect();
        writeln!(page, "**Not installed here, and so not measured: {}.**\n", names.join(", "))?;
    }
    Ok(page)
}

fn matrix(page: &mut String, results: &[(Workload, Verdicts)]) -> Result<()> {
    let Some((_, first)) = results.first() else { return Ok(()) };
    writeln!(
        page,
        "## All in one table\n\nWhat each figure promises stands in the tables below and in [the last one](#uses).\n"
    )?;
    let links: Vec<String> = results.iter().map(|(workload, _)| format!("[{0}](#{0})", workload.name())).collect();
    writeln!(page, "| queue | {} |", links.join(" | "))?;
    writeln!(page, "| --- |{}", " ---: |".repeat(links.len()))?;
    let names = first.iter().map(|(name, _)| name.as_str()).filter(|name| *name != FLOOR).chain([FLOOR]);
    for name in names {
        let cell = |(workload, verdicts): &(Workload, Verdicts)| {
            let found = verdicts.iter().find(|(row, _)| row == name);
            found.map_or_else(|| "-".to_owned(), |(_, verdict)| figure_text(*workload, verdict))
        };
        writeln!(page, "| {name} | {} |", results.iter().map(cell).collect::<Vec<_>>().join(" | "))?;
    }
    writeln!(page)?;
    Ok(())
}

fn table(page: &mut String, workload: Workload, verdicts: &Verdicts, facts: &[(&str, Facts)]) -> Result<()> {
    let subject = verdicts.iter().find(|(name, _)| name == SUBJECT).map(|(_, verdict)| verdict);
    writeln!(page, "<a id=\"{}\"></a>\n\n## {}\n\n{}\n", workload.name(), workload.title(), workload.explanation())?;
    writeln!(page, "![{}](plots/{}.svg)\n", workload.title(), workload.name())?;
    let figure = if workload.unit() == Unit::Latency { "p50, p99" } else { "figure" };
    let what = if workload.acknowledges() { "its acknowledgement" } else { "a publish" };
    writeln!(
        page,
        "| queue | {figure} | against millpond | {what} survives kill -9 | {what} survives power loss | acknowledges | remark |"
    )?;
    writeln!(page, "| --- | ---: | ---: | --- | --- | --- | --- |")?;
    let mut better = Vec::new();
    for row in sorted(workload, verdicts) {
        let facts = facts.iter().find(|(name, _)| *name == row.name).map(|(_, facts)| facts);
        let (ratio, is_better) = subject.map_or_else(Default::default, |subject| against(workload, &row, subject));
        if let (true, Some(facts)) = (is_better, facts) {
            let why = facts.advantage(workload).or(workload.usual_reason()).unwrap_or("why was not looked into");
            better.push(format!("- {}: {why}.", row.name));
        }
        writeln!(
            page,
            "| {} | {} | {ratio} | {} | {} |",
            shown_name(workload, row.name),
            figure_text(workload, row.verdict),
            facts.map_or_else(|| "| | ".to_owned(), |facts| promises(workload, facts)),
            remark(workload, row.verdict),
        )?;
    }
    if !better.is_empty() {
        writeln!(page, "\nBetter than millpond here, and why:\n\n{}", better.join("\n"))?;
    }
    writeln!(page)?;
    Ok(())
}

/// The cells that say what a row's figure is worth.
fn promises(workload: Workload, facts: &Facts) -> String {
    let (kill9, power) = if workload.acknowledges() {
        (facts.acknowledgement_survives_kill9, facts.acknowledgement_survives_power_loss)
    } else if workload.is_durable() {
        // What survives power loss survives the end of a process.
        let power = facts.survives_power_loss_when_asked;
        (if matches!(power, Survives::Yes) { power } else { facts.survives_kill9 }, power)
    } else {
        (facts.survives_kill9, facts.survives_power_loss)
    };
    format!("{kill9} | {power} | {}", facts.acknowledgement)
}

/// How a row stands to millpond, and whether it is the better one by any figure.
fn against(workload: Workload, row: &Row<'_>, subject: &Verdict) -> (String, bool) {
    let (Verdict::Measured { median: row_run, .. }, Verdict::Measured { median: subject, .. }) = (row.verdict, subject)
    else {
        return Default::default();
    };
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let Some(first) = ratio(row_run.figure, subject.figure) else { return Default::default() };
    // That the bare machine is better is no news.
    let is_better =
        |ratio: f64| row.name != FLOOR && if workload.unit().more_is_better() { ratio > 1.0 } else { ratio < 1.0 };
    let ratios: Vec<f64> = [Some(first), ratio(row_run.p99, subject.p99)].into_iter().flatten().collect();
    let text = ratios.iter().map(|ratio| {
        let text = ratio_text(*ratio);
        if is_better(*ratio) { format!("**{text}**") } else { text }
    });
    (text.collect::<Vec<_>>().join(", "), ratios.iter().any(|ratio| is_better(*ratio)))
}

fn ratio_text(ratio: f64) -> String {
    let digits = match ratio {
        _ if ratio < 0.01 => 5,
        _ if ratio < 0.1 => 3,
        _ if ratio < 10.0 => 2,
        _ => 0,
    };
    format!("{ratio:.digits$} x")
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
    let what = if workload.unit() == Unit::Latency { "p50, p99; " } else { "" };
    plot::bars(&format!("{} ({what}{better}, logarithmic)", workload.title()), &bars)
}

fn facts_table(page: &mut String, facts: &[(&str, Facts)]) -> Result<()> {
    writeln!(page, "<a id=\"uses\"></a>\n\n## How each queue is used\n")?;
    writeln!(
        page,
        "Durable rows are those of the three workloads whose publishes are to survive power loss. What is said of acknowledgements holds in all rows.\n"
    )?;
    writeln!(
        page,
        "| queue | version | a publish survives kill -9 | a publish survives power loss: durable rows; other rows | acknowledges | an acknowledgement \
         survives kill -9; power loss | use and limits |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for (name, facts) in facts {
        let Facts { version, survives_kill9, acknowledgement, note, .. } = facts;
        let (other, durable) = (facts.survives_power_loss, facts.survives_power_loss_when_asked);
        let (kill9, power) = (facts.acknowledgement_survives_kill9, facts.acknowledgement_survives_power_loss);
        writeln!(
            page,
            "| {name} | {version} | {survives_kill9} | {durable}; {other} | {acknowledgement} | {kill9}; {power} | {note} |"
        )?;
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
        let text =
            |workload, name, figure| against(workload, &Row { name, verdict: &measured(figure) }, &measured(1.0));
        assert_eq!(text(Workload::PublishOne, "q", 2.0), ("**2.00 x**".to_owned(), true));
        assert_eq!(text(Workload::PublishOne, FLOOR, 2.0), ("2.00 x".to_owned(), false));
        assert_eq!(text(Workload::OpenClean, "q", 20.4), ("20 x".to_owned(), false));
        assert_eq!(text(Workload::OpenClean, "q", 0.05), ("**0.050 x**".to_owned(), true));
        assert_eq!(text(Workload::PublishOne, "q", 0.0004), ("0.00040 x".to_owned(), false));
        let left = Verdict::Left(String::new());
        assert_eq!(
            against(Workload::PublishOne, &Row { name: "q", verdict: &left }, &measured(1.0)),
            Default::default()
        );
    }

    #[test]
    fn both_latencies_are_compared() {
        let latency = |p50, p99| {
            let median = Outcome { figure: Some(p50), p99: Some(p99), ..Outcome::default() };
            Verdict::Measured { median, low: p50, high: p50, fault: None }
        };
        let (text, is_better) =
            against(Workload::Live, &Row { name: "q", verdict: &latency(2.0, 5.0) }, &latency(1.0, 10.0));
        assert_eq!((text.as_str(), is_better), ("2.00 x, **0.50 x**", true));
    }
}
