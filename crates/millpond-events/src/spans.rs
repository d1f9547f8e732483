//! Spans for publish, handler and settle: none, without the feature `tracing`.
//!
//! With the feature `opentelemetry` their parents come from events: the spans of a handler and of its settle have the parent that the
//! event names, and an event that names none gets the span in which it is published.

#[cfg(feature = "tracing")]
pub(crate) use traced::{Publishing, current_traceparent, handling, settling};
#[cfg(not(feature = "tracing"))]
pub(crate) use untraced::{Publishing, current_traceparent, handling, settling};

#[cfg(feature = "tracing")]
mod traced {
    use crate::attributes::Attributes;
    use crate::cloudevents::TYPE_HEADER;
    use crate::transport::WireMessage;
    use tracing::field::Empty;
    use tracing::span::{EnteredSpan, Span};

    /// The span of an event that is handled.
    pub(crate) fn handling(subscriber: &str, attributes: &Attributes, attempt: u32) -> EnteredSpan {
        let span = tracing::info_span!(
            "handle event",
            subscriber,
            "type" = attributes.event_type(),
            id = attributes.id(),
            correlation_id = attributes.correlation_id(),
            traceparent = attributes.traceparent(),
            attempt
        );
        enter(span, attributes.traceparent())
    }

    /// The span of an event that is settled: the commit of what its handler did.
    pub(crate) fn settling(subscriber: &str, held: Option<&Attributes>, error: &'static str) -> EnteredSpan {
        let traceparent = held.and_then(Attributes::traceparent);
        let span = tracing::info_span!(
            "settle event",
            subscriber,
            id = held.map(Attributes::id),
            traceparent,
            error = (!error.is_empty()).then_some(error)
        );
        enter(span, traceparent)
    }

    /// The span of a publish.
    pub(crate) struct Publishing(EnteredSpan);

    impl Publishing {
        /// Begins it, in the trace of the first event if that names one.
        pub(crate) fn begin(traceparent: Option<&str>) -> Self {
            let span = tracing::info_span!(
                "publish events",
                count = Empty,
                "type" = Empty,
                id = Empty,
                correlation_id = Empty,
                traceparent = Empty
            );
            Self(enter(span, traceparent))
        }

        /// Notes what is published: how many, and what the first is.
        pub(crate) fn note(&self, messages: &[WireMessage]) {
            self.0.record("count", messages.len());
            let headers = messages.first().map_or(&[][..], |message| &message.headers);
            for (field, wanted) in [
                ("type", TYPE_HEADER),
                ("id", "ce_id"),
                ("correlation_id", "ce_correlationid"),
                ("traceparent", "ce_traceparent"),
            ] {
                let found = headers.iter().find(|(name, _)| name == wanted);
                if let Some(text) = found.and_then(|(_, value)| std::str::from_utf8(value).ok()) {
                    self.0.record(field, text);
                }
            }
        }
    }

    #[cfg(not(feature = "opentelemetry"))]
    fn enter(span: Span, _traceparent: Option<&str>) -> EnteredSpan {
        span.entered()
    }

    /// What an event names as its parent, which is published here and names none.
    #[cfg(not(feature = "opentelemetry"))]
    pub(crate) const fn current_traceparent() -> Option<String> {
        None
    }

    #[cfg(feature = "opentelemetry")]
    fn enter(span: Span, traceparent: Option<&str>) -> EnteredSpan {
        use opentelemetry::trace::TraceContextExt;
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        if let Some(parent) = traceparent.and_then(super::parent::read) {
            // Where no layer takes spans to OpenTelemetry there is no parent to set.
            let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
        }
        span.entered()
    }

    /// What an event names as its parent, which is published here and names none: the span that is entered.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn current_traceparent() -> Option<String> {
        use opentelemetry::trace::TraceContextExt;
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        super::parent::write(Span::current().context().span().span_context())
    }
}

/// The trace context of W3C as text.
#[cfg(feature = "opentelemetry")]
mod parent {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    /// `None` if the text is none, or all zeros.
    pub(super) fn read(text: &str) -> Option<SpanContext> {
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may add parts.
        let is_text = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        if !is_text || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        context.is_valid().then_some(context)
    }

    pub(super) fn write(context: &SpanContext) -> Option<String> {
        let flags = context.trace_flags().to_u8();
        context.is_valid().then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn parent_comes_back_and_other_text_is_none() {
            let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            assert_eq!(write(&read(text).unwrap()).as_deref(), Some(text));
            assert_eq!(
                read(&text.replacen("00", "cc", 1).replace("-01", "-01-more")).map(|context| context.is_sampled()),
                Some(true)
            );
            let wrong = [
                "",
                "00",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
                "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
            ];
            for text in wrong {
                assert_eq!(read(text), None, "{text}");
            }
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod untraced {
    use crate::attributes::Attributes;
    use crate::transport::WireMessage;

    /// In place of a span.
    pub(crate) struct NoSpan;

    pub(crate) const fn handling(_subscriber: &str, _attributes: &Attributes, _attempt: u32) -> NoSpan {
        NoSpan
    }

    pub(crate) const fn settling(_subscriber: &str, _held: Option<&Attributes>, _error: &'static str) -> NoSpan {
        NoSpan
    }

    /// In place of the span of a publish.
    pub(crate) struct Publishing;

    impl Publishing {
        pub(crate) const fn begin(_traceparent: Option<&str>) -> Self {
            Self
        }

        pub(crate) const fn note(&self, _messages: &[WireMessage]) {}
    }

    pub(crate) const fn current_traceparent() -> Option<String> {
        None
    }
}
