// A page is narrower than most pictures: each leads to itself in its own size.
document.addEventListener("DOMContentLoaded", () => {
  for (const picture of document.querySelectorAll("article img")) {
    if (picture.closest("a")) continue;
    const link = document.createElement("a");
    link.href = picture.src;
    link.title = "Open this picture in its own size";
    picture.replaceWith(link);
    link.append(picture);
  }
});
