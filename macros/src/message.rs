//! `#[derive(Message)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Ident, LitStr, Path, parse_quote};

pub(crate) fn derive(item: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let (mut name, mut key, mut krate) = (None::<LitStr>, None::<Ident>, None::<Path>);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("key") {
                key = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("crate") {
                krate = Some(meta.value()?.parse::<LitStr>()?.parse()?);
            } else {
                return Err(meta.error("#[message] has no such key; it has `name`, `key` and `crate`"));
            }
            Ok(())
        })?;
    }
    let ident = &input.ident;
    let Some(name) = name else {
        return Err(Error::new(
            ident.span(),
            "a message needs a name on the wire: `#[message(name = \"stock.reserved\")]`",
        ));
    };
    let value = name.value();
    if value.is_empty() || value.len() > 200 || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::new(
            name.span(),
            "a message's name has 1 to 200 visible characters without spaces; it is a routing key, such as \"stock.reserved\"",
        ));
    }
    let krate = krate.unwrap_or_else(|| parse_quote!(::amends));
    let key = key.map(|key| ordering_key(&input, &key)).transpose()?;
    let (impl_generics, ty_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics #krate::Message for #ident #ty_generics #where_clause {
            const NAME: &'static str = #name;
            #key
        }
    })
}

fn ordering_key(input: &DeriveInput, key: &Ident) -> syn::Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(key.span(), "only a struct has a field for its key; implement `Message` by hand"));
    };
    let fields: Vec<_> = data.fields.iter().filter_map(|field| field.ident.as_ref()).collect();
    if !fields.contains(&key) {
        let known: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
        return Err(Error::new(key.span(), format!("there is no field `{key}`; the fields are: {}", known.join(", "))));
    }
    Ok(quote! {
        fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, str>> {
            ::core::option::Option::Some(::std::borrow::Cow::Owned(::std::string::ToString::to_string(&self.#key)))
        }
    })
}
