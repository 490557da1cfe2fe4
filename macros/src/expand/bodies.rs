//! What runs a body: reads the recorded data, calls the method, encodes what it returned.

use proc_macro2::{Delimiter, Group, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::spanned::Spanned;

use super::types::{at, check, output_type, readers_type, respan, returned, returned_at, whole_type};
use crate::model::{Body, Capability, Kind, Param, Saga, SagaArgs, Source};
use crate::validate::Graph;

/// What the bodies of a saga are written with.
#[derive(Clone, Copy)]
pub(super) struct Glue<'a> {
    pub(super) args: &'a SagaArgs,
    pub(super) saga: &'a Saga,
    pub(super) graph: &'a Graph,
}

impl<'a> Glue<'a> {
    /// The forward actions of tx and call steps.
    pub(super) fn execute(self) -> Vec<TokenStream> {
        let krate = &self.args.krate;
        let steps = self.saga.steps.iter().enumerate();
        let arms = steps.filter(|(_, step)| !step.body.is_plain()).map(|(index, step)| {
            let returned = returned_at(&step.body);
            let output = respan(quote!(#krate::__private::output), returned);
            let output = quote_spanned!(at(returned)=> #output(&__amends_output));
            let checks = self.stands_for(index);
            self.arm(index, &step.body, &checks, &output)
        });
        arms.collect()
    }

    /// The compensations by a transaction or a call.
    pub(super) fn compensate(self) -> Vec<TokenStream> {
        let krate = &self.args.krate;
        let null = quote!({
            let _ = __amends_output;
            ::core::result::Result::Ok(#krate::Json::null())
        });
        let undoes = self.undoes().filter(|(_, body)| !body.is_plain());
        undoes.map(|(step, body)| self.arm(step, body, &TokenStream::new(), &null)).collect()
    }

    /// What the other steps begin, and the compensations by a request.
    pub(super) fn begin(self) -> Vec<TokenStream> {
        let steps = self.saga.steps.iter().enumerate().filter(|(_, step)| step.body.is_plain());
        let steps = steps.map(|(index, step)| {
            let checks = self.stands_for(index);
            self.begins(index, false, &step.body, step.args.kind.unwrap_or(Kind::Request), &checks)
        });
        let undoes = self.undoes().filter(|(_, body)| body.is_plain());
        steps
            .chain(undoes.map(|(step, body)| self.begins(step, true, body, Kind::Request, &TokenStream::new())))
            .collect()
    }

    /// The answers to requests and signals.
    pub(super) fn accept(self) -> Vec<TokenStream> {
        let krate = &self.args.krate;
        let answered = self
            .saga
            .steps
            .iter()
            .enumerate()
            .filter(|(_, it)| matches!(it.args.kind, Some(Kind::Request | Kind::Signal)));
        let arms = answered.map(|(index, step)| {
            let (ty, span) = (output_type(krate, step), returned_at(&step.body));
            let accepts = respan(quote!(#krate::__private::accepts), span);
            quote_spanned!(at(span)=> #index => #accepts::<#ty>(__amends_answer),)
        });
        arms.collect()
    }

    pub(super) fn probe(self) -> Vec<TokenStream> {
        let krate = &self.args.krate;
        let probes = self.graph.probe.iter().enumerate().filter_map(|(step, probe)| Some((step, (*probe)?)));
        let arms = probes.map(|(step, probe)| {
            let body = &self.saga.probes[probe].body;
            let returned = returned_at(body);
            let recorded = respan(output_type(krate, &self.saga.steps[step]), returned);
            let found = respan(quote!(#krate::__private::found), returned);
            let found = quote_spanned!(at(returned)=> #found::<#recorded, _>(__amends_output));
            // It has the call itself.
            self.arm(step, body, &quote!(let __amends_capability = #krate::__private::Called(__amends_call);), &found)
        });
        arms.collect()
    }

    pub(super) fn upcast(self) -> Vec<TokenStream> {
        let krate = &self.args.krate;
        let upcasts = self.graph.upcast.iter().enumerate().filter_map(|(step, upcast)| Some((step, (*upcast)?)));
        let arms = upcasts.map(|(step, upcast)| {
            let body = &self.saga.upcasts[upcast].body;
            let (method, returned) = (body.name(), returned_at(body));
            let (reads, arguments) = (self.reads(step, body), arguments(body));
            let recorded = respan(whole_type(krate, &self.saga.steps[step]), returned);
            let made_up = respan(quote!(#krate::__private::made_up), returned);
            quote_spanned!(at(returned)=> #step => {
                #(#reads)*
                #made_up::<#recorded, _>(self.#method(#(#arguments),*))
            })
        });
        arms.collect()
    }

    /// The steps that are undone by a method.
    fn undoes(self) -> impl Iterator<Item = (usize, &'a Body)> {
        let Glue { saga, graph, .. } = self;
        graph.undo.iter().enumerate().filter_map(|(step, undo)| Some((step, &saga.compensations[(*undo)?].body)))
    }

    /// One arm of an async body; `output` says what becomes of `__amends_output`.
    fn arm(self, step: usize, body: &Body, checks: &TokenStream, output: &TokenStream) -> TokenStream {
        let krate = &self.args.krate;
        let (method, returned) = (body.name(), returned_at(body));
        let (reads, arguments) = (self.reads(step, body), arguments(body));
        let capability = capability(body);
        let settled = self::returned(krate, body, Kind::Call);
        let settled = quote_spanned!(returned=> #settled::settled);
        let called = quote_spanned!(at(returned)=> self.#method(__amends_capability #(, #arguments)*).await);
        let mut called = Group::new(Delimiter::Parenthesis, called);
        called.set_span(returned);
        let local = Ident::new("__amends_output", at(returned));
        let settled = quote_spanned!(returned=> let #local = #settled #called?;);
        let pin = respan(quote!(#krate::__private::Box::pin), method.span());
        // On the method's name, so that a future which is not `Send` is reported there.
        let future = quote_spanned! {at(method.span())=>
            #pin(async move {
                #checks
                #capability
                #(#reads)*
                #settled
                #output
            })
        };
        quote!(#step => #future,)
    }

    /// One arm of a plain body.
    fn begins(self, step: usize, undo: bool, body: &Body, kind: Kind, checks: &TokenStream) -> TokenStream {
        let krate = &self.args.krate;
        let (method, returned) = (body.name(), returned_at(body));
        let (reads, arguments) = (self.reads(step, body), arguments(body));
        let begins = self::returned(krate, body, kind);
        let begins = quote_spanned!(returned=> #begins::begin);
        let begun = quote_spanned!(at(returned)=> #begins(self.#method(#(#arguments),*)));
        quote!((#step, #undo) => {
            #checks
            #(#reads)*
            #begun
        })
    }

    /// The output of an alternate is of the type of the one for which it stands.
    fn stands_for(self, end: usize) -> TokenStream {
        let Some(replaced) = self.graph.alternate.iter().position(|it| *it == Some(end)) else {
            return TokenStream::new();
        };
        let (krate, since) = (&self.args.krate, self.args.since);
        let recorded = readers_type(krate, &self.saga.steps[replaced], since);
        let given = readers_type(krate, &self.saga.steps[end], since);
        check(krate, "stands_for", &recorded, &given, returned_at(&self.saga.steps[end].body))
    }

    fn reads(self, step: usize, body: &Body) -> Vec<TokenStream> {
        body.params.iter().map(|param| self.read(step, param)).collect()
    }

    fn read(self, own: usize, param: &Param) -> TokenStream {
        let krate = &self.args.krate;
        let (local, ty) = (local(param), &param.ty);
        let (recorded, read) = match self.saga.source(&param.name) {
            Some(Source::Step(step)) => {
                let it = &self.saga.steps[step];
                let recorded = if step == own { output_type(krate, it) } else { whole_type(krate, it) };
                let read = if param.optional { quote!(maybe_output(#step)) } else { quote!(output(#step)) };
                (Some(recorded), read)
            }
            Some(Source::Item) => (None, quote!(item())),
            _ => {
                let input = &self.args.input;
                (Some(quote!(#input)), quote!(input()))
            }
        };
        // All on the parameter's type, so that a mismatch is reported there, and only there: what follows reads what the
        // parameter says.
        let read = respan(read, ty.span());
        let (check, read_ty) = match recorded.map(|recorded| respan(recorded, ty.span())) {
            Some(recorded) if param.is_view() => (TokenStream::new(), recorded),
            Some(recorded) => {
                (quote_spanned!(at(ty.span())=> #krate::__private::is_same::<#recorded, #ty>();), quote!(#ty))
            }
            None => (self.check_item(own, param), item_type(krate, param)),
        };
        let read_ty = if param.optional { quote!(::core::option::Option<#read_ty>) } else { read_ty };
        quote_spanned!(at(ty.span())=> #check let #local: #read_ty = __amends_data.#read?;)
    }

    /// The first `item` of a step is of the list's type, and every other one of the first one's: where there is no list, one
    /// message says so.
    fn check_item(self, own: usize, param: &Param) -> TokenStream {
        let Glue { args: SagaArgs { krate, input, .. }, saga, graph } = self;
        let step = &saga.steps[own];
        let helpers = [graph.undo[own].map(|it| &saga.compensations[it]), graph.probe[own].map(|it| &saga.probes[it])];
        let bodies = std::iter::once(&step.body).chain(helpers.into_iter().flatten().map(|helper| &helper.body));
        let is_item = |it: &&Param| saga.source(&it.name) == Some(Source::Item);
        let first = bodies.flat_map(|body| &body.params).find(is_item);
        let (span, item) = (param.ty.span(), item_type(krate, param));
        if let Some(first) = first.filter(|first| !std::ptr::eq(*first, param)) {
            return check(krate, "is_same", &item_type(krate, first), &item, span);
        }
        let Some(over) = &step.args.for_each else { return TokenStream::new() };
        let root = saga.find(&over.root).map_or_else(|| quote!(#input), |root| whole_type(krate, &saga.steps[root]));
        let (root, item, fields) = (respan(root, span), respan(item, span), &over.fields);
        let list = if fields.is_empty() { quote!(__amends_root) } else { quote!(&__amends_root #(.#fields)*) };
        // A local of its own on the parameter's type, since the fields are elsewhere.
        let local = Ident::new("__amends_list", span);
        quote_spanned! {at(span)=>
            let #local = #krate::__private::over::<#root, _>(|__amends_root| #list);
            #local.is_list_of::<#item, _>();
        }
    }
}

/// Nothing says what an item is but the parameter and the list.
fn item_type(krate: &syn::Path, param: &Param) -> TokenStream {
    let ty = &param.ty;
    if param.is_view() {
        quote_spanned!(at(ty.span())=> <#ty as #krate::__private::ToOwned>::Owned)
    } else {
        quote!(#ty)
    }
}

fn arguments(body: &Body) -> Vec<TokenStream> {
    let lent = body.params.iter().map(|param| {
        let local = local(param);
        match (param.optional, param.is_view()) {
            (true, true) => quote_spanned!(at(param.ty.span())=> #local.as_deref()),
            (true, false) => quote!(#local.as_ref()),
            (false, true) => quote_spanned!(at(param.ty.span())=> &#local),
            (false, false) => quote!(&#local),
        }
    });
    lent.collect()
}

/// On the parameter's type, so that another one is reported there.
fn capability(body: &Body) -> TokenStream {
    let Some(Capability { ty, kind, .. }) = &body.capability else { return TokenStream::new() };
    if *kind == Kind::Tx {
        quote!(let __amends_capability = __amends_capability.tx();)
    } else {
        quote_spanned!(at(ty.span())=> let __amends_capability: &#ty = __amends_capability.call();)
    }
}

fn local(param: &Param) -> Ident {
    format_ident!("__amends_{}", param.name, span = at(param.ty.span()))
}
