//! One drawing in every format: the SVG itself, a 300-dpi PNG, a vector PDF with the font embedded.

use crate::canvas::escaped;
use crate::error::PlotError;
use crate::{Figure, Format};

/// Resolution of the PNG, dots per inch.
pub const PNG_DPI: u32 = 300;

impl Figure {
    /// The figure as a file of this format. The same figure gives the same bytes every time.
    ///
    /// # Errors
    /// [`PlotError::Export`] when the drawing cannot be turned into the format, and
    /// [`PlotError::FormatLeftOut`] for PNG and PDF in builds without the feature `raster-pdf`.
    pub fn bytes(&self, format: Format) -> Result<Vec<u8>, PlotError> {
        match format {
            Format::Svg => Ok(self.svg_with_facts().into_bytes()),
            #[cfg(feature = "raster-pdf")]
            Format::Png => raster_pdf::png(self),
            #[cfg(feature = "raster-pdf")]
            Format::Pdf => raster_pdf::pdf(self),
            #[cfg(not(feature = "raster-pdf"))]
            Format::Png | Format::Pdf => Err(PlotError::FormatLeftOut(format)),
        }
    }

    /// `name: text`, one a fact.
    fn fact_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.facts.iter().map(|(name, text)| format!("{name}: {text}"))
    }

    /// The SVG with what it was made from behind its title.
    fn svg_with_facts(&self) -> String {
        if self.facts.is_empty() {
            return self.svg.clone();
        }
        let lines: Vec<String> = self.fact_lines().map(|line| escaped(&line)).collect();
        let metadata = format!("</title>\n<metadata>\n{}\n</metadata>\n", lines.join("\n"));
        self.svg.replacen("</title>\n", &metadata, 1)
    }
}

#[cfg(feature = "raster-pdf")]
pub(crate) mod raster_pdf {
    use std::sync::Arc;

    use krilla_svg::SurfaceExt;
    use resvg::{tiny_skia, usvg};

    use super::PNG_DPI;
    use crate::error::PlotError;
    use crate::font::FONT_BYTES;
    use crate::{Figure, Format};

    /// CSS pixels in an inch, which is what `usvg` measures in.
    const CSS_DPI: f32 = 96.0;
    /// Dots per metre at [`PNG_DPI`]: 300 / 0.0254, rounded.
    const DOTS_PER_METRE: u32 = 11_811;

    fn error(format: Format, reason: &impl ToString) -> PlotError {
        PlotError::Export { format, reason: reason.to_string() }
    }

    /// Parses the drawing with the embedded font alone: fonts of the machine must not matter.
    pub(crate) fn parse(svg: &str, format: Format) -> Result<usvg::Tree, PlotError> {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(FONT_BYTES.to_vec());
        let options = usvg::Options { fontdb: Arc::new(fonts), dpi: CSS_DPI, ..usvg::Options::default() };
        usvg::Tree::from_str(svg, &options).map_err(|e| error(format, &e))
    }

    pub(super) fn png(figure: &Figure) -> Result<Vec<u8>, PlotError> {
        let failed = |reason: &str| error(Format::Png, &reason);
        let tree = parse(&figure.svg, Format::Png)?;
        let scale = PNG_DPI as f32 / CSS_DPI;
        let dots = |length: f32| (length * scale).round() as u32;
        let (width, height) = (dots(tree.size().width()), dots(tree.size().height()));
        let mut sheet = tiny_skia::Pixmap::new(width, height).ok_or_else(|| failed("no such size"))?;
        sheet.fill(tiny_skia::Color::WHITE);
        resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut sheet.as_mut());
        // The sheet is opaque, so colours are what they are and the fourth channel says nothing.
        let colors: Vec<u8> = sheet.data().chunks_exact(4).flat_map(|dot| [dot[0], dot[1], dot[2]]).collect();
        encode(&colors, (width, height), &figure.facts).map_err(|e| error(Format::Png, &e))
    }

    /// Compresses the dots and notes their size, so that the picture is printed as wide as it was drawn.
    fn encode(
        colors: &[u8],
        (width, height): (u32, u32),
        facts: &[(String, String)],
    ) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_pixel_dims(Some(png::PixelDimensions {
            xppu: DOTS_PER_METRE,
            yppu: DOTS_PER_METRE,
            unit: png::Unit::Meter,
        }));
        for (name, text) in facts {
            encoder.add_itxt_chunk(name.clone(), text.clone())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(colors)?;
        writer.finish()?;
        Ok(bytes)
    }

    pub(super) fn pdf(figure: &Figure) -> Result<Vec<u8>, PlotError> {
        let failed = |reason: &str| error(Format::Pdf, &reason);
        let tree = parse(&figure.svg, Format::Pdf)?;
        let points = |length: f32| length * 72.0 / CSS_DPI;
        let size = krilla::geom::Size::from_wh(points(tree.size().width()), points(tree.size().height()))
            .ok_or_else(|| failed("no such size"))?;
        let mut document = krilla::Document::new();
        let about = krilla::metadata::Metadata::new().title(figure.name.clone());
        document.set_metadata(about.keywords(figure.fact_lines().collect()));
        let mut page = document.start_page_with(krilla::page::PageSettings::new(size));
        let mut surface = page.surface();
        surface
            .draw_svg(&tree, size, krilla_svg::SvgSettings::default())
            .ok_or_else(|| failed("the drawing was refused"))?;
        surface.finish();
        page.finish();
        document.finish().map_err(|e| error(Format::Pdf, &format!("{e:?}")))
    }
}
