// Files compiled into the library (cmake/embed.cmake): bytes of the program, never freed.
#pragma once

#include <string_view>

namespace brick::report::asset {

extern const std::string_view kPageHtml;  // the page's frame, with {{name}} where a part goes
extern const std::string_view kPageCss;
extern const std::string_view kPageJs;
extern const std::string_view kChartMinJs;  // Chart.js, MIT, as Debian packages it (libjs-chart.js)

}  // namespace brick::report::asset
