import Mustache

/// The page as a Mustache template: everything that is written into it with two braces is escaped.
enum PageTemplate {
  /// Escapes scalar by scalar: the library's own escaping goes by characters, and takes a quote that a combining mark
  /// follows for another character.
  private struct Escaping: MustacheContentType {
    func escapeText(_ text: String) -> String { SVG.escape(text) }
  }

  private static let escaping: Void = MustacheContentTypes.register(Escaping(), named: "REPORT")

  /// - Throws: what the template is wrong in.
  static func render(_ content: [String: Any]) throws -> String {
    _ = escaping
    return try MustacheTemplate(string: "{{% CONTENT_TYPE:REPORT}}" + text).render(content)
  }

  private static let text = """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width,initial-scale=1">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
    <meta name="generator" content="{{generator}}">
    <title>{{title}}</title>
    <link rel="icon" href="data:,">
    <style>
    {{{style}}}
    </style>
    </head>
    <body>
    <a class="skip" href="#main">To the content</a>
    <header>
    <h1>{{title}}</h1>
    <p class="muted">{{subtitle}}</p>
    <nav aria-label="Parts of the report"><ul>
    <li><a href="#summary">Summary</a></li>
    {{#budget}}<li><a href="#budget">Error against ratio</a></li>{{/budget}}
    <li><a href="#map">Map</a></li>
    <li><a href="#numbers">Where the numbers are</a></li>
    {{#hasDetails}}<li><a href="#matrices">Matrices</a></li>{{/hasDetails}}
    <li><a href="#tables">All figures</a></li>
    {{#hasRecipes}}<li><a href="#recipe">Recipe</a></li>{{/hasRecipes}}
    {{#hasLoading}}<li><a href="#loading">How to load it</a></li>{{/hasLoading}}
    </ul></nav>
    </header>
    <main id="main">
    <section id="summary" aria-labelledby="summary-name">
    <h2 id="summary-name">Summary</h2>
    {{#notes}}<p><strong>Note:</strong> {{text}}</p>
    {{/notes}}
    {{#hasCards}}<dl class="cards">
    {{#cards}}<div class="card"><dt>{{name}}</dt><dd><strong>{{value}}</strong>{{detail}}</dd></div>
    {{/cards}}</dl>{{/hasCards}}
    {{#hasCards}}<details><summary>The summary as a table</summary><div>{{/hasCards}}
    <div class="scroll" tabindex="0" role="region" aria-label="Summary as a table">
    <table class="plain" id="summary-table"><thead><tr><th scope="col">what</th>
    {{#subjects}}<th scope="col">{{heading}}</th>{{/subjects}}</tr></thead><tbody>
    {{#summary}}<tr><th scope="row">{{name}}</th>{{#values}}<td>{{text}}</td>{{/values}}</tr>
    {{/summary}}</tbody></table></div>
    {{#hasCards}}</div></details>{{/hasCards}}
    </section>
    {{#budget}}
    <section id="budget" aria-labelledby="budget-name">
    <h2 id="budget-name">Error of the whole network against its ratio</h2>
    <figure>{{{picture}}}<figcaption>{{caption}}</figcaption></figure>
    </section>
    {{/budget}}
    <section id="map" aria-labelledby="map-name">
    <h2 id="map-name">The network as a map</h2>
    <p>Each row is a layer, each cell a matrix. Point at a cell, or go to it with the keyboard, to see its figures; follow its
    link to the matrix. A dashed cell is a matrix that is stored unchanged. Errors are relative: in the metric of the
    statistics where the conversion had some, otherwise in the Frobenius norm.</p>
    <input class="by" type="radio" name="by" id="by-ratio" checked><label for="by-ratio">Colour by ratio</label>
    <input class="by" type="radio" name="by" id="by-error"><label for="by-error">Colour by error</label>
    <p class="scale ratio-scale">ratio: {{#ratioScale}}<span class="s{{step}}">{{text}}</span>{{/ratioScale}} and more</p>
    <p class="scale error-scale">error: {{#errorScale}}<span class="s{{step}}">{{text}}</span>{{/errorScale}} and more</p>
    <div class="maps">
    {{#maps}}
    {{#heading}}<h3>{{heading}}</h3>{{/heading}}
    {{#blocks}}
    <div class="scroll" tabindex="0" role="region" aria-label="Map: {{label}}">
    <table class="map{{#isWide}} wide{{/isWide}}"><caption>{{caption}}</caption>
    <thead><tr><th scope="col">{{rowsName}}</th>{{#columns}}<th scope="col">{{#parts}}{{.}}<wbr>{{/parts}}{{^parts}}<span
    class="hidden">figures</span>{{/parts}}</th>{{/columns}}</tr></thead><tbody>
    {{#rows}}<tr><th scope="row">{{title}}</th>{{#cells}}{{{cell}}}{{/cells}}</tr>
    {{/rows}}</tbody></table></div>
    {{/blocks}}
    {{/maps}}
    </div>
    </section>
    <section id="numbers" aria-labelledby="numbers-name">
    <h2 id="numbers-name">Where the numbers are</h2>
    <figure>{{{kinds}}}<figcaption>Outlined: the numbers before. Filled: the numbers stored. Tensors that are not matrices are
    left out.</figcaption></figure>
    {{#dense}}
    <h3>What stays dense{{#label}} in {{label}}{{/label}}, and why</h3>
    <table class="plain"><thead><tr><th scope="col">why</th><th scope="col" class="n">tensors</th>
    <th scope="col" class="n">numbers</th></tr></thead><tbody>
    {{#rows}}<tr><th scope="row">{{reason}}</th><td class="n">{{tensors}}</td><td class="n">{{elements}}</td></tr>
    {{/rows}}</tbody></table>
    {{/dense}}
    </section>
    {{#hasDetails}}
    <section id="matrices" aria-labelledby="matrices-name">
    <h2 id="matrices-name">Matrices</h2>
    <p>{{detailsNote}} In the diagrams each circle is a core (the filled one is the central core), and the line between
    two cores is their bond with its size. The factors of the rows are above, those of the columns below.</p>
    {{#groups}}
    <details><summary>{{title}} <span>{{count}}</span></summary><div>
    {{#matrices}}
    <details class="matrix"><summary>{{name}} <span>{{line}}</span></summary><div id="m{{index}}">
    <div class="pictures">{{#chains}}<figure class="long">{{{picture}}}<figcaption>{{caption}}</figcaption></figure>
    {{/chains}}</div>
    <div class="scroll" tabindex="0" role="region" aria-label="Figures of {{name}}"><table class="plain">
    <thead><tr><th scope="col">what</th>{{#subjects}}<th scope="col">{{heading}}</th>{{/subjects}}</tr></thead><tbody>
    {{#figures}}<tr><th scope="row">{{what}}</th>{{#values}}<td>{{text}}</td>{{/values}}</tr>
    {{/figures}}</tbody></table></div>
    <div class="pictures">
    {{#errors}}<figure class="long">{{{picture}}}<figcaption>{{{caption}}}</figcaption></figure>{{/errors}}
    {{#pictures}}<figure>{{{picture}}}<figcaption>{{caption}}</figcaption></figure>
    {{/pictures}}
    </div>
    </div></details>
    {{/matrices}}
    </div></details>
    {{/groups}}
    </section>
    {{/hasDetails}}
    <section id="tables" aria-labelledby="tables-name">
    <h2 id="tables-name">All figures</h2>
    {{#tables}}
    <details><summary>{{summary}}</summary><div>
    <div class="scroll" tabindex="0" role="region" aria-label="{{summary}}"><table class="plain figures">
    <thead><tr><th scope="col">matrix</th>{{#columns}}<th scope="col"{{#isNumber}} class="n"{{/isNumber}}>{{title}}</th>
    {{/columns}}</tr></thead><tbody>
    {{{rows}}}
    </tbody></table></div></div></details>
    {{/tables}}
    </section>
    {{#hasRecipes}}
    <section id="recipe" aria-labelledby="recipe-name">
    <h2 id="recipe-name">The recipe</h2>
    {{#recipes}}
    {{#label}}<h3>{{label}}</h3>{{/label}}
    {{#command}}<p>The command that makes it:</p><pre><code class="command">{{command}}</code></pre>{{/command}}
    <details><summary>The whole recipe as YAML</summary><div><pre><code class="yaml">{{yaml}}</code></pre></div></details>
    {{/recipes}}
    </section>
    {{/hasRecipes}}
    {{#hasLoading}}
    <section id="loading" aria-labelledby="loading-name">
    <h2 id="loading-name">How to load it</h2>
    {{#loading}}<p>{{title}}:</p><pre><code>{{code}}</code></pre>
    {{/loading}}
    </section>
    {{/hasLoading}}
    </main>
    <footer>Made by {{generator}}. The page holds everything that it shows: it loads nothing from the network and runs no
    script.</footer>
    </body>
    </html>

    """
}
