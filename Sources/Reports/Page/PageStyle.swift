/// How the page looks, in light and dark, on a phone and on paper.
enum PageStyle {
  /// Nine colours from little to much, and whether text on them is dark: every one has a contrast of at least 4.5.
  static let ratioColours = [
    "#eef5fc", "#d6e6f7", "#b8d4f0", "#93bde6", "#6fa8dd", "#2f74b8", "#20609f", "#174f8c",
    "#0b376a",
  ]
  static let errorColours = [
    "#fff3e6", "#ffe0c2", "#fec896", "#fba968", "#f59150", "#b94a16", "#a03f12", "#85330e",
    "#66260a",
  ]
  static let darkText = "#10161d"
  static let lightText = "#ffffff"
  /// Steps from here on have light text.
  static let firstLightStep = 5

  /// The step of a value from 0 to 1.
  static func step(_ fraction: Double) -> Int {
    guard fraction.isFinite else { return 8 }
    return min(8, max(0, Int(fraction * 9)))
  }

  /// The rules of the colours of cells; in the dark the order is turned round, so that little is near to the background.
  private static var colours: String {
    func rules(_ colours: [String], _ state: String, isDark: Bool) -> String {
      (0..<9).map { step in
        let place = isDark ? 8 - step : step
        let text = place < firstLightStep ? darkText : lightText
        return "#by-\(state):checked~.maps .\(state.prefix(1))\(step),.\(state)-scale .s\(step)"
          + "{background:\(colours[place]);color:\(text)}"
      }.joined(separator: "\n")
    }
    return """
      \(rules(ratioColours, "ratio", isDark: false))
      \(rules(errorColours, "error", isDark: false))
      @media (prefers-color-scheme:dark){
      \(rules(ratioColours, "ratio", isDark: true))
      \(rules(errorColours, "error", isDark: true))
      }
      """
  }

  static let css = """
    :root{color-scheme:light dark;--bg:#fff;--fg:#1a1f26;--muted:#56606b;--line:#d7dce2;--accent:#0b5cad;
    --on-accent:#fff;--card:#f6f8fa;--warm:#b94a16}
    @media (prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e6e9ed;--muted:#a3adb8;--line:#353e48;--accent:#6fb3ff;
    --on-accent:#0b1622;--card:#1a2027;--warm:#f59150}}
    *{box-sizing:border-box}
    html{scroll-behavior:smooth}
    @media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
    body{margin:0 auto;max-width:76rem;padding:1.2rem clamp(.9rem,3vw,2.2rem) 5rem;background:var(--bg);color:var(--fg);
    font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;overflow-wrap:anywhere}
    h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 .2rem}
    h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.5rem;border-top:1px solid var(--line)}
    h3{font-size:1rem;margin:1.2rem 0 .3rem}
    p{margin:.4rem 0 .8rem;max-width:60rem}
    .muted,figcaption,caption{color:var(--muted)}
    a{color:var(--accent)}
    :focus-visible{outline:3px solid var(--accent);outline-offset:2px}
    .hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
    .skip{position:absolute;left:-99rem}.skip:focus{left:1rem;background:var(--bg);padding:.4rem}
    nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;margin:.6rem 0 0}
    .cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}
    .card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem}
    .card dt{color:var(--muted);font-size:.9rem}
    .card dd{margin:0;font-size:1.02rem}
    .card dd strong{display:block;font-size:1.55rem;line-height:1.25;font-variant-numeric:tabular-nums}
    .scroll{overflow-x:auto;max-width:100%}
    table{border-collapse:collapse;font-variant-numeric:tabular-nums}
    caption{text-align:left;padding:.3rem 0}
    .plain th,.plain td{padding:.28rem .7rem .28rem 0;border-bottom:1px solid var(--line);text-align:left;
    vertical-align:top;font-weight:400}
    .plain thead th{color:var(--muted);white-space:nowrap}
    .plain td.n,.plain th.n{text-align:right;white-space:nowrap}
    .plain tbody th{overflow-wrap:normal}
    .map{border-spacing:2px;border-collapse:separate}
    .map thead th{vertical-align:bottom;font-weight:400;font-size:.8rem;color:var(--muted);max-width:7.5rem;
    line-height:1.2;padding:0 .25rem .2rem;overflow-wrap:normal;text-align:center}
    .map tbody th{font-weight:400;font-size:.85rem;text-align:right;padding-right:.5rem;white-space:nowrap;
    position:sticky;left:0;background:var(--bg)}
    .map td{padding:0;min-width:3.4rem}
    .cell{display:block;text-align:center;text-decoration:none;font-size:.82rem;line-height:1.65rem;border-radius:.2rem;
    color:var(--fg);border:1px solid transparent}
    .cell:hover,.cell:focus-visible{border-color:var(--fg)}
    .cell.dense{border:1px dashed var(--muted);background:none!important;color:var(--muted)!important}
    .wide td{min-width:1.15rem}.wide .cell{line-height:1.15rem;height:1.15rem}
    .wide thead th{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;max-height:11rem}
    .cell:hover::after,.cell:focus-visible::after{content:attr(aria-label);position:fixed;left:0;right:0;bottom:0;z-index:3;
    background:var(--fg);color:var(--bg);font-size:.95rem;line-height:1.4;padding:.5rem 1rem;text-align:left}
    .by{position:absolute;opacity:0}
    .by+label{display:inline-block;border:1px solid var(--line);border-radius:1rem;padding:.1rem .8rem;margin-right:.3rem;
    cursor:pointer}
    .by:checked+label{background:var(--accent);color:var(--on-accent);border-color:var(--accent)}
    .by:focus-visible+label{outline:3px solid var(--accent);outline-offset:2px}
    .cell b,.cell i{font:inherit}
    #by-ratio:checked~.maps .cell i,#by-error:checked~.maps .cell b,#by-ratio:checked~.error-scale,#by-error:checked~.ratio-scale
    {display:none}
    .scale{margin:.6rem 0;font-size:.85rem;color:var(--muted)}
    .scale span{display:inline-block;min-width:2.4rem;padding:0 .3rem;text-align:center;line-height:1.5rem}
    figure{margin:1rem 0}
    figcaption{font-size:.9rem;max-width:60rem}
    .picture{display:block;max-width:100%;height:auto}
    .picture text{fill:var(--fg);font-size:11px;font-family:inherit}
    .picture .name{fill:var(--muted)}
    .grid{stroke:var(--line);stroke-width:1}.axis,.tick,.leg{stroke:var(--muted);stroke-width:1.2}
    .curve,.hull,.cross{fill:none;stroke:var(--accent);stroke-width:1.6}
    .rank{stroke-dasharray:5 3}.hull{stroke:var(--warm);stroke-width:4;opacity:.55}
    .cross{stroke:var(--fg)}
    .kept{fill:var(--accent);opacity:.28}.cut{stroke:var(--warm);stroke-width:1.5;stroke-dasharray:3 2}
    .mark{fill:var(--accent);stroke:var(--bg);stroke-width:1.5}
    .picture .sign,.picture .site.central{fill:var(--on-accent);font-weight:700}
    .limit{fill:none;stroke:var(--muted);stroke-width:1}.bar{fill:var(--accent);opacity:.75}
    .bond{stroke:var(--accent)}.core{fill:var(--card);stroke:var(--accent);stroke-width:2}
    .core.central{fill:var(--accent)}.picture .size{font-weight:700}
    .key{display:inline-block;width:1.8rem;border-top:3px solid var(--accent);vertical-align:middle;margin:0 .3rem 0 .6rem}
    .key.low{border-top-style:dashed}.key.best{border-color:var(--warm)}
    details{border:1px solid var(--line);border-radius:.5rem;margin:.4rem 0;background:var(--bg)}
    summary{cursor:pointer;padding:.35rem .8rem}
    summary span{color:var(--muted);font-size:.9rem}
    details>div{padding:.2rem .8rem .8rem;scroll-margin-top:1rem}
    details>div:target{border-left:4px solid var(--accent)}
    .pictures{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:start}
    .pictures figure{margin:.5rem 0;max-width:100%;width:min-content;min-width:min(100%,17.5rem)}
    .pictures .long{min-width:min(100%,26rem)}
    @media (max-width:34rem){body{font-size:15px}.budget text,.kinds text,.errors text{font-size:13.5px}.cards{grid-template-columns:repeat(auto-fit,minmax(10rem,1fr))}
    .card dd strong{font-size:1.15rem}}
    pre{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;white-space:pre-wrap;
    overflow-wrap:anywhere;font-size:.9rem;margin:.4rem 0}
    code{font-family:ui-monospace,"Liberation Mono",Menlo,Consolas,monospace}
    pre code{user-select:all}
    footer{margin-top:3rem;color:var(--muted);font-size:.9rem}
    @media print{body{max-width:none;padding:0;font-size:11pt}nav,.by,.by+label{display:none}
    *{print-color-adjust:exact;-webkit-print-color-adjust:exact}figure,.card,tr{break-inside:avoid}
    .map tbody th{position:static}.scroll{overflow:visible}}
    \(colours)
    """
}
