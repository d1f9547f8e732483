//! What a file of Rust says, as far as the rules ask for it: which items are tests, which paths it names, how long its
//! functions are, what the arms of its matches catch. Never here: what is allowed.

use crate::arms::{self, Seen};
use crate::tokens;
use proc_macro2::{Span, TokenStream};
use std::ops::RangeInclusive;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Meta, Token, UseTree};

/// A path that the code names, with `use` trees taken apart: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Clone, Debug)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) parts: Vec<String>,
    /// The inline modules (`mod x { … }`) around it, outermost first.
    pub(crate) inside: Vec<String>,
    /// The name that it has from here on, where a `use` brings it in.
    pub(crate) imported_as: Option<String>,
}

/// A function with a body: its name, its first line and how many lines it has.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) len: usize,
}

/// A declaration `mod name;`.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) inside: Vec<String>,
    pub(crate) is_test: bool,
}

/// A `match`, in which function, and what its arms name or catch.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) function: String,
    pub(crate) seen: Vec<Seen>,
}

/// A file. Paths, functions, enums and matches are those outside its tests.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) tokens: TokenStream,
    pub(crate) paths: Vec<NamedPath>,
    pub(crate) functions: Vec<Function>,
    pub(crate) declarations: Vec<Declaration>,
    pub(crate) enums: Vec<String>,
    pub(crate) matches: Vec<Match>,
    tests: Vec<RangeInclusive<usize>>,
}

impl Source {
    pub(crate) fn read(text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse()?;
        let file: syn::File = syn::parse2(tokens.clone())?;
        let found = Self { text: text.to_owned(), tokens, ..Self::default() };
        let mut walk = Walk { found, in_test: false, inside: vec![], owners: vec![], functions: vec![] };
        walk.visit_file(&file);
        Ok(walk.found)
    }

    /// How many lines are not tests.
    pub(crate) fn lines_outside_tests(&self) -> usize {
        (1..=self.text.lines().count()).filter(|line| !self.tests.iter().any(|test| test.contains(line))).count()
    }

    /// What a name stands for that a `use` of this file brings in at its top.
    pub(crate) fn import(&self, name: &str) -> Option<&NamedPath> {
        self.paths.iter().find(|path| path.inside.is_empty() && path.imported_as.as_deref() == Some(name))
    }
}

struct Walk {
    found: Source,
    in_test: bool,
    inside: Vec<String>,
    /// The types of the `impl`s around: what `Self` stands for.
    owners: Vec<String>,
    functions: Vec<String>,
}

impl Walk {
    /// Goes on within something that has attributes, which may say that it is a test.
    fn within(&mut self, attributes: &[Attribute], span: impl FnOnce() -> Span, go_on: impl FnOnce(&mut Self)) {
        let begins_test = !self.in_test && attributes.iter().any(is_for_tests_only);
        if begins_test {
            let span = span();
            self.found.tests.push(span.start().line..=span.end().line);
        }
        self.in_test |= begins_test;
        go_on(self);
        self.in_test &= !begins_test;
    }

    fn name(&mut self, line: usize, parts: Vec<String>, imported_as: Option<String>) {
        if !self.in_test {
            self.found.paths.push(NamedPath { line, parts, inside: self.inside.clone(), imported_as });
        }
    }

    fn function(&mut self, name: String, line: usize, last: usize) {
        if !self.in_test {
            self.found.functions.push(Function { name, line, len: last - line + 1 });
        }
    }

    fn body(&mut self, signature: &syn::Signature, body: &Block, go_on: impl FnOnce(&mut Self)) {
        let name = signature.ident.unraw().to_string();
        let last = body.brace_token.span.close().end().line;
        self.function(name.clone(), signature.fn_token.span.start().line, last);
        self.functions.push(name);
        go_on(self);
        self.functions.pop();
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &[String]) {
        let with = |last: &syn::Ident| -> Vec<String> {
            let own = Some(last.unraw().to_string()).filter(|last| prefix.is_empty() || last != "self");
            prefix.iter().cloned().chain(own).collect()
        };
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => {
                let parts = with(&name.ident);
                let last = parts.last().cloned();
                self.name(line, parts, last);
            }
            UseTree::Rename(rename) => self.name(line, with(&rename.ident), Some(rename.rename.unraw().to_string())),
            UseTree::Glob(_) => {
                self.name(line, prefix.iter().cloned().chain(["*".to_owned()]).collect(), Some("*".to_owned()));
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, prefix)),
        }
    }

    /// What only tokens are known of.
    fn tokens(&mut self, stream: &TokenStream) {
        for (line, parts) in tokens::paths(stream.clone()) {
            self.name(line, parts, None);
        }
        for (name, line, last) in tokens::functions(stream.clone()) {
            self.function(name, line, last);
        }
    }
}

/// `#[test]`, and any `#[cfg(…)]` that holds in tests only.
fn is_for_tests_only(attribute: &Attribute) -> bool {
    if attribute.path().is_ident("cfg") {
        return attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition));
    }
    attribute.path().is_ident("test")
}

fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.iter().any(needs_test),
        Some("any") => !parts.is_empty() && parts.iter().all(needs_test),
        _ => false,
    }
}

/// Lets each kind of node that may carry `#[cfg(test)]` and has nothing else of its own go through [`Walk::within`].
macro_rules! look_at_attributes {
    ($($visit:ident: $node:ident,)*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            self.within(&node.attrs, || node.span(), |walk| visit::$visit(walk, node));
        })*
    };
}

impl<'ast> Visit<'ast> for Walk {
    look_at_attributes! {
        visit_file: File,
        visit_item_const: ItemConst,
        visit_item_foreign_mod: ItemForeignMod,
        visit_item_macro: ItemMacro,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_trait: ItemTrait,
        visit_item_type: ItemType,
        visit_item_union: ItemUnion,
        visit_impl_item_const: ImplItemConst,
        visit_impl_item_macro: ImplItemMacro,
        visit_impl_item_type: ImplItemType,
        visit_trait_item_const: TraitItemConst,
        visit_trait_item_macro: TraitItemMacro,
        visit_trait_item_type: TraitItemType,
        visit_field: Field,
        visit_field_pat: FieldPat,
        visit_field_value: FieldValue,
        visit_pat_type: PatType,
        visit_variant: Variant,
        visit_arm: Arm,
        visit_local: Local,
        visit_stmt_macro: StmtMacro,
        visit_expr_assign: ExprAssign,
        visit_expr_binary: ExprBinary,
        visit_expr_block: ExprBlock,
        visit_expr_call: ExprCall,
        visit_expr_for_loop: ExprForLoop,
        visit_expr_if: ExprIf,
        visit_expr_macro: ExprMacro,
        visit_expr_method_call: ExprMethodCall,
        visit_expr_return: ExprReturn,
        visit_expr_try: ExprTry,
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                let name = node.ident.unraw().to_string();
                if node.content.is_none() {
                    let (inside, is_test) = (walk.inside.clone(), walk.in_test);
                    walk.found.declarations.push(Declaration { name: name.clone(), inside, is_test });
                }
                walk.inside.push(name);
                visit::visit_item_mod(walk, node);
                walk.inside.pop();
            },
        );
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                walk.use_tree(&node.tree, &[]);
                visit::visit_visibility(walk, &node.vis);
            },
        );
    }

    fn visit_item_extern_crate(&mut self, node: &'ast syn::ItemExternCrate) {
        let name = |ident: &syn::Ident| ident.unraw().to_string();
        let known_as = node.rename.as_ref().map_or(&node.ident, |(_, rename)| rename);
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                walk.name(node.ident.span().start().line, vec![name(&node.ident)], Some(name(known_as)));
            },
        );
    }

    fn visit_item_enum(&mut self, node: &'ast syn::ItemEnum) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                if !walk.in_test {
                    walk.found.enums.push(node.ident.unraw().to_string());
                }
                visit::visit_item_enum(walk, node);
            },
        );
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                let owner = match &*node.self_ty {
                    syn::Type::Path(named) => named.path.segments.last().map(|last| last.ident.unraw().to_string()),
                    _ => None,
                };
                walk.owners.push(owner.unwrap_or_default());
                visit::visit_item_impl(walk, node);
                walk.owners.pop();
            },
        );
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                walk.body(&node.sig, &node.block, |walk| visit::visit_item_fn(walk, node));
            },
        );
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                walk.body(&node.sig, &node.block, |walk| visit::visit_impl_item_fn(walk, node));
            },
        );
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| match &node.default {
                Some(block) => walk.body(&node.sig, block, |walk| visit::visit_trait_item_fn(walk, node)),
                None => visit::visit_trait_item_fn(walk, node),
            },
        );
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        self.within(
            &node.attrs,
            || node.span(),
            |walk| {
                if !walk.in_test {
                    let function = walk.functions.last().cloned().unwrap_or_default();
                    let seen = arms::seen(node, walk.owners.last());
                    walk.found.matches.push(Match { function, seen });
                }
                visit::visit_expr_match(walk, node);
            },
        );
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        if node.segments.len() > 1 {
            let parts = node.segments.iter().map(|part| part.ident.unraw().to_string()).collect();
            self.name(node.span().start().line, parts, None);
        }
        visit::visit_path(self, node);
    }

    /// What a macro is given is looked at as code where it is code, and else as tokens.
    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        self.visit_path(&node.path);
        if let Ok(expressions) = node.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            expressions.iter().for_each(|expression| self.visit_expr(expression));
        } else if let Ok(statements) = node.parse_body_with(Block::parse_within) {
            statements.iter().for_each(|statement| self.visit_stmt(statement));
        } else {
            self.tokens(&node.tokens);
        }
    }

    fn visit_meta_list(&mut self, node: &'ast syn::MetaList) {
        self.visit_path(&node.path);
        self.tokens(&node.tokens);
    }
}
