//! The definition as a drawing, for documents and dashboards.

use std::fmt::Write;

use super::{Definition, Step};

impl Definition {
    /// The graph as a [Mermaid](https://mermaid.js.org/syntax/flowchart.html) flowchart: solid arrows go forward, dotted
    /// ones lead to a compensation or to an alternate, and the pivot stands in a double frame.
    ///
    /// ```
    /// use amends::{Definition, Step, StepKind};
    /// let step = Step::new("charge".into(), StepKind::Call);
    /// let drawing = Definition::new("place-order".into(), 1, vec![step].into()).mermaid();
    /// assert_eq!(drawing, "flowchart TD\n  s0[\"charge<br>call\"]\n");
    /// ```
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        for (i, step) in self.steps.iter().enumerate() {
            let (open, close) = if step.pivot { ("[[", "]]") } else { ("[", "]") };
            line(&mut text, format_args!("s{i}{open}\"{}\"{close}", label(step, "<br>", mermaid_text)));
            for before in step.after.iter() {
                line(&mut text, format_args!("s{before} --> s{i}"));
            }
            if let Some(undo) = &step.compensation {
                let undo = mermaid_text(&format!("{} ({})", undo.name, undo.kind));
                line(&mut text, format_args!("s{i} -. undone by .-> u{i}([\"{undo}\"])"));
            }
            if let Some(alternate) = step.alternate {
                line(&mut text, format_args!("s{i} -. else .-> s{alternate}"));
            }
        }
        text
    }

    /// The graph in the language of [Graphviz](https://graphviz.org/doc/info/lang.html).
    ///
    /// ```
    /// use amends::{Definition, Step, StepKind};
    /// let step = Step::new("charge".into(), StepKind::Call);
    /// let drawing = Definition::new("place-order".into(), 1, vec![step].into()).dot();
    /// assert_eq!(drawing, "digraph \"place-order v1\" {\n  s0 [shape=box, label=\"charge\\ncall\"];\n}\n");
    /// ```
    pub fn dot(&self) -> String {
        let mut text = format!("digraph \"{} v{}\" {{\n", dot_text(&self.name), self.version);
        for (i, step) in self.steps.iter().enumerate() {
            let frame = if step.pivot { ", peripheries=2" } else { "" };
            line(&mut text, format_args!("s{i} [shape=box{frame}, label=\"{}\"];", label(step, "\\n", dot_text)));
            for before in step.after.iter() {
                line(&mut text, format_args!("s{before} -> s{i};"));
            }
            if let Some(undo) = &step.compensation {
                let undo = dot_text(&format!("{} ({})", undo.name, undo.kind));
                line(&mut text, format_args!("u{i} [label=\"{undo}\"];"));
                line(&mut text, format_args!("s{i} -> u{i} [style=dotted, label=\"undone by\"];"));
            }
            if let Some(alternate) = step.alternate {
                line(&mut text, format_args!("s{i} -> s{alternate} [style=dotted, label=\"else\"];"));
            }
        }
        text.push_str("}\n");
        text
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {line}");
}

fn label(step: &Step, newline: &str, escape: fn(&str) -> String) -> String {
    let each = step.for_each.as_ref().map(|each| format!(" for each of {}", each.over)).unwrap_or_default();
    let child = step.child.as_ref().map(|child| format!(" {child}")).unwrap_or_default();
    let savepoint = if step.savepoint { ", savepoint" } else { "" };
    let what = escape(&format!("{}{child}{each}{savepoint}", step.kind));
    format!("{}{newline}{what}", escape(&step.name))
}

fn mermaid_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;").replace('#', "&num;")
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use crate::{Definition, Step, StepKind};

    #[test]
    fn names_with_quotes_and_tags_stay_names() {
        let step = Step::new("say \"hi\" <b> \\".into(), StepKind::Tx);
        let definition = Definition::new("s".into(), 1, vec![step].into());
        assert!(definition.mermaid().contains("say &quot;hi&quot; &lt;b&gt;"), "{}", definition.mermaid());
        assert!(definition.dot().contains(r#"say \"hi\" <b> \\"#), "{}", definition.dot());
    }
}
