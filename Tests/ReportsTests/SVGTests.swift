import Glibc
import TensorNetworks
import Testing

@testable import Reports

@Suite struct SVGTests {
  @Test(arguments: [
    (0.0, "0"), (1, "1"), (-2.26, "-2.3"), (0.04, "0"), (-0.04, "0"), (1234.5, "1234.5"),
    (.nan, "0"), (.infinity, "0"),
  ])
  func `coordinates have one decimal at most`(value: Double, text: String) {
    #expect(SVG.number(value) == text)
  }

  @Test func `text is escaped, also where a mark makes one character of a quote`() {
    #expect(SVG.escape("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#39;")
    #expect(SVG.escape("x\"\u{301} onload=\u{27}\u{301}") == "x&quot;\u{301} onload=&#39;\u{301}")
    #expect(SVG.escape("a\u{202E}b\u{1b}c") == "a\\u{202e}b\\u{1b}c")
    #expect(
      SVG.element("a", ["href": "\"><script>"], "x") == "<a href=\"&quot;&gt;&lt;script&gt;\">x</a>"
    )
  }

  @Test func `an axis puts its ends at its ends and has round values between them`() {
    let axis = Axis(0...0.93, from: 10, to: 110)
    #expect(
      axis.place(0) == 10 && axis.place(0.93) == 110 && axis.place(7) == 110 && axis.place(-1) == 10
    )
    #expect(axis.ticks().map { Axis.label($0) } == ["0", "0.5"] || axis.ticks().count > 2)
    #expect(axis.ticks().allSatisfy { (0...0.93).contains($0) })
    let logarithmic = Axis(1e-4...10, from: 0, to: 50, isLogarithmic: true)
    #expect(abs(logarithmic.place(0.1) - 30) < 1e-9)
    #expect(
      logarithmic.ticks(5).map { Axis.label($0) } == ["1e-4", "0.001", "0.01", "0.1", "1", "10"]
        || logarithmic.ticks(5).count >= 3)
    #expect(Axis.label(1_500_000) == "1.5M" && Axis.label(0.25) == "0.25" && Axis.label(0) == "0")
    #expect(Axis(2...2, from: 0, to: 1).place(2) == 0)
  }

  @Test func `a list is thinned to its ends and what is between them`() {
    #expect(Array(0..<100).thinned(to: 4) == [0, 33, 66, 99])
    #expect([1, 2, 3].thinned(to: 4) == [1, 2, 3])
  }

  @Test func `the picture of a chain has its cores, factors and bonds`() throws {
    let shape = try MPOShape(rowFactors: [3, 4, 4, 4, 4], columnFactors: [4, 4, 8, 6, 4])
    let svg = ChainPicture(shape: shape, bonds: [12, 96, 77, 16]).svg
    #expect(svg.ranges(of: "<circle").count == 5 && svg.ranges(of: "core central").count == 1)
    #expect(svg.ranges(of: "class=\"bond\"").count == 4)
    for text in [">12<", ">96<", ">77<", ">8<", ">6<"] { #expect(svg.contains(text), "\(text)") }
    #expect(
      svg.contains("role=\"img\"") && svg.contains("bonds 12,96,77,16 of at most 12,192,384,16"))
  }

  @Test func `a spectrum is filled as far as it is kept`() {
    let values = (1...40).map { 1 / Double($0) }
    let svg = SpectrumPicture(title: "bond 1", values: values, cuts: [("", 10)]).svg
    #expect(
      svg.contains("class=\"kept\"") && svg.contains("class=\"cut\"") && svg.contains("kept are 10")
    )
    let nothing = SpectrumPicture(title: "bond 1", values: values, cuts: []).svg
    #expect(!nothing.contains("class=\"kept\"") && !nothing.contains("class=\"cut\""))
    #expect(
      !SpectrumPicture(title: "zero", values: [0, 0, 0], cuts: [("", 1)]).svg.contains("nan"))
  }

  @Test func `points at one place share a mark`() {
    var chart = Chart(width: 200, height: 100, x: 0...1, y: 0...1, xTitle: "", yTitle: "")
    chart.add(points: [(0.2, 0.5, "A"), (0.9, 0.5, "B"), (0.21, 0.5, "C")])
    let svg = chart.picture(kind: "test", title: "", description: "")
    #expect(svg.ranges(of: "<circle").count == 2 && svg.contains(">AC<") && svg.contains(">B<"))
  }

  @Test func `a bar of entropy is as long as its part of the limit`() throws {
    let svg = EntropyPicture(entropies: [0.6931471805599453], fullBonds: [4]).svg
    // From 50 to 186: the limit is all of it, ln 2 of ln 4 half.
    #expect(svg.contains("width=\"136\" height=\"18\" class=\"limit\""))
    #expect(svg.contains("width=\"68\" height=\"18\" class=\"bar\""))
    #expect(svg.contains("bond 1: 0.69 of at most 1.39"))
  }

  @Test func `kinds beyond the limit are put together`() {
    let kinds = (1...20).map { KindPicture.Kind(name: "k\($0)", before: Double($0), after: [1]) }
    let picture = KindPicture(kinds, signs: [""], limit: 5)
    #expect(picture.kinds.map(\.name) == ["k20", "k19", "k18", "k17", "16 more"])
    #expect(picture.kinds[4].before == 136 && picture.kinds[4].after == [16])
  }

  @Test(arguments: [PageStyle.ratioColours, PageStyle.errorColours])
  func `text on every colour of a map can be read`(colours: [String]) throws {
    #expect(colours.count == 9)
    for (step, colour) in colours.enumerated() {
      let text = step < PageStyle.firstLightStep ? PageStyle.darkText : PageStyle.lightText
      #expect(contrast(luminance(colour), luminance(text)) >= 4.5, "\(colour)")
    }
  }

  private func luminance(_ colour: String) -> Double {
    let number = Int(colour.dropFirst(), radix: 16) ?? 0
    let parts = [16, 8, 0].map { shift -> Double in
      let value = Double((number >> shift) & 0xFF) / 255
      return value <= 0.03928 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4)
    }
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
  }

  private func contrast(_ a: Double, _ b: Double) -> Double {
    (max(a, b) + 0.05) / (min(a, b) + 0.05)
  }
}
