//! What the arms of a `match` name and what they catch, place by place: the value itself, its first field, and so on.
//! Never here: which enums must be named in full.

use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Expr, ExprMatch, Ident, Member, Pat, Path, Stmt};

/// What a pattern has at one place of the value.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) line: usize,
    /// The way to it from the value that is matched: `""` for itself, `"/Err.0"` for what is within `Err(…)`.
    pub(crate) place: String,
    pub(crate) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A variant of this enum.
    VariantOf(String),
    /// All is caught, and looked at or dropped by the arm.
    Caught,
    /// All is caught, and the arm gives it on as it is: returns it, or hands it to a function.
    HandedOn,
}

/// Everything that the arms name or catch. `owner` is what `Self` stands for.
pub(crate) fn seen(node: &ExprMatch, owner: Option<&String>) -> Vec<Seen> {
    let mut found = Vec::new();
    for arm in &node.arms {
        let before = found.len();
        let scene = Scene { owner, body: &arm.body };
        scene.pattern(&arm.pat, "", &mut found);
        if arm.guard.is_some() {
            // What a guard may refuse is not caught.
            let named = found.split_off(before).into_iter().filter(|seen| matches!(seen.what, What::VariantOf(_)));
            found.extend(named);
        }
    }
    found
}

/// Where a pattern stands.
struct Scene<'a> {
    owner: Option<&'a String>,
    body: &'a Expr,
}

impl Scene<'_> {
    fn pattern(&self, pat: &Pat, place: &str, found: &mut Vec<Seen>) {
        let mut inner = |pat: &Pat, part: &str| self.pattern(pat, &format!("{place}{part}"), found);
        match pat {
            Pat::Or(alternatives) => alternatives.cases.iter().for_each(|pat| inner(pat, "")),
            Pat::Paren(around) => inner(&around.pat, ""),
            Pat::Reference(around) => inner(&around.pat, ""),
            Pat::Type(around) => inner(&around.pat, ""),
            Pat::Tuple(tuple) => numbered(&tuple.elems).for_each(|(at, pat)| inner(pat, &format!("/{at}"))),
            Pat::Slice(slice) => numbered(&slice.elems).for_each(|(at, pat)| inner(pat, &format!("/{at}"))),
            Pat::TupleStruct(tuple) => {
                let name = last(&tuple.path);
                numbered(&tuple.elems).for_each(|(at, pat)| inner(pat, &format!("/{name}.{at}")));
                self.variant(&tuple.path, place, found);
            }
            Pat::Struct(fields) => {
                let name = last(&fields.path);
                for field in &fields.fields {
                    let member = match &field.member {
                        Member::Named(name) => name.unraw().to_string(),
                        Member::Unnamed(index) => index.index.to_string(),
                    };
                    inner(&field.pat, &format!("/{name}.{member}"));
                }
                self.variant(&fields.path, place, found);
            }
            Pat::Path(path) => self.variant(&path.path, place, found),
            Pat::Ident(name) => match &name.subpat {
                Some((_, pat)) => inner(pat, ""),
                // What begins with a capital is a constant or a variant.
                None if name.ident.unraw().to_string().starts_with(char::is_uppercase) => {}
                None => {
                    let what = if is_handed_on(&name.ident, self.body) { What::HandedOn } else { What::Caught };
                    found.push(Seen { line: line(name), place: place.to_owned(), what });
                }
            },
            Pat::Wild(wild) => found.push(Seen { line: line(wild), place: place.to_owned(), what: What::Caught }),
            // Values, ranges, the rest of a tuple, macros.
            _ => {}
        }
    }

    fn variant(&self, path: &Path, place: &str, found: &mut Vec<Seen>) {
        let Some(named) = path.segments.iter().rev().nth(1) else { return };
        let name = named.ident.unraw().to_string();
        let name = if name == "Self" { self.owner.cloned().unwrap_or(name) } else { name };
        found.push(Seen { line: line(path), place: place.to_owned(), what: What::VariantOf(name) });
    }
}

fn line(node: &impl Spanned) -> usize {
    node.span().start().line
}

fn numbered<'a>(patterns: impl IntoIterator<Item = &'a Pat>) -> impl Iterator<Item = (usize, &'a Pat)> {
    patterns.into_iter().enumerate()
}

fn last(path: &Path) -> String {
    path.segments.last().map(|last| last.ident.unraw().to_string()).unwrap_or_default()
}

/// Whether what an arm comes to is this name, or a call that is given it.
fn is_handed_on(name: &Ident, body: &Expr) -> bool {
    match body {
        Expr::Path(path) => path.path.is_ident(name),
        Expr::Return(returned) => returned.expr.as_ref().is_some_and(|expression| is_handed_on(name, expression)),
        Expr::Call(call) => call.args.iter().any(|argument| is_handed_on(name, argument)),
        Expr::MethodCall(call) if call.method == "into" => is_handed_on(name, &call.receiver),
        Expr::MethodCall(call) => call.args.iter().any(|argument| is_handed_on(name, argument)),
        Expr::Block(block) => match block.block.stmts.last() {
            Some(Stmt::Expr(expression, _)) => is_handed_on(name, expression),
            _ => false,
        },
        _ => false,
    }
}
