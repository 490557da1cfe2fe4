//! `#[derive(Message)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Ident, LitStr, Meta, Path, parse_quote};

use crate::args::{each_key, equals, unknown};
use crate::sink::Sink;

const MESSAGE_KEYS: &str = "`name`, `key`, `encoding`, `packed` and `crate`";

/// `#[message(…)]`.
#[derive(Default)]
struct Args {
    name: Option<LitStr>,
    key: Option<Ident>,
    encoding: Option<Path>,
    packed: bool,
    krate: Option<Path>,
}

/// The implementation, or the mistakes.
pub(crate) fn derive(item: TokenStream) -> TokenStream {
    let mut sink = Sink::default();
    let Some(input) = sink.take(syn::parse2::<DeriveInput>(item)) else { return sink.into_tokens() };
    let args = args(&input, &mut sink);
    let key = args.key.as_ref().map(|key| ordering_key(&input, key, &mut sink));
    match &args.name {
        Some(name) if sink.is_empty() => implementation(input, name, key.as_ref(), &args),
        _ => sink.into_tokens(),
    }
}

fn args(input: &DeriveInput, sink: &mut Sink) -> Args {
    let mut args = Args::default();
    if !matches!(input.data, Data::Struct(_)) {
        sink.at(input.ident.span(), "a message is a struct, so that it can grow; wrap this in one");
    }
    let known = sink.len();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
        let tokens = match &attribute.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        each_key(tokens, sink, |key, input| {
            match key.to_string().as_str() {
                "name" => args.name = Some(equals(input).and_then(wire_name)?),
                "key" => args.key = Some(equals(input)?),
                "encoding" => args.encoding = Some(equals(input)?),
                "packed" => args.packed = true,
                "crate" => args.krate = Some(equals::<LitStr>(input)?.parse()?),
                _ => return Err(unknown(key, "#[message]", MESSAGE_KEYS)),
            }
            Ok(())
        });
    }
    if args.name.is_none() && known == sink.len() {
        sink.at(input.ident.span(), "a message needs a name on the wire: `#[message(name = \"stock.reserved\")]`");
    }
    args
}

fn wire_name(name: LitStr) -> syn::Result<LitStr> {
    let value = name.value();
    if value.is_empty() || value.len() > 200 || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::new(
            name.span(),
            "a message's name has 1 to 200 visible characters without spaces; it is a routing key, such as \"stock.reserved\"",
        ));
    }
    Ok(name)
}

fn implementation(mut input: DeriveInput, name: &LitStr, key: Option<&TokenStream>, args: &Args) -> TokenStream {
    let krate = args.krate.clone().unwrap_or_else(|| parse_quote!(::amends));
    let encoding = args.encoding.clone().unwrap_or_else(|| parse_quote!(#krate::AsJson));
    let packed = args.packed.then(|| {
        quote!(
            const PACKED: ::core::primitive::bool = true;
        )
    });
    if input.generics.type_params().next().is_some() {
        // The format decides what it asks of the parameters.
        let predicates = &mut input.generics.make_where_clause().predicates;
        predicates.push(parse_quote!(Self: ::core::marker::Send + ::core::marker::Sync));
        predicates.push(parse_quote!(#encoding: #krate::Encoding<Self>));
    }
    let ident = &input.ident;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    quote! {
        impl #impl_generics #krate::Message for #ident #ty_generics #where_clause {
            const NAME: &'static ::core::primitive::str = #name;
            #packed
            type Encoding = #encoding;
            #key
        }
    }
}

/// The method that says the key, if there is such a field.
fn ordering_key(input: &DeriveInput, key: &Ident, sink: &mut Sink) -> TokenStream {
    if let Data::Struct(data) = &input.data {
        let fields: Vec<_> = data.fields.iter().filter_map(|field| field.ident.as_ref()).collect();
        if !fields.contains(&key) {
            let known: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
            let known = if known.is_empty() {
                format!("`{}` has no named fields", input.ident)
            } else {
                format!("the fields are: {}", known.join(", "))
            };
            sink.at(key.span(), format!("there is no field `{key}`; {known}"));
        }
    }
    // On the field's name, so that one without a text is reported there.
    let text = quote_spanned!(key.span()=> ::std::string::ToString::to_string(&self.#key));
    quote! {
        fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, ::core::primitive::str>> {
            ::core::option::Option::Some(::std::borrow::Cow::Owned(#text))
        }
    }
}
